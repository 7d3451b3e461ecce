"""Where windows lie in a clip, against numpy's own interpolation and counting by hand."""

import numpy as np
import pytest

from gblend.windows import frame_indices, mel_window, start_count


def mel(values, **changes):
    settings = {"start_s": 0.0, "window_s": 0.1, "hop_s": 0.01, "frames": 10, "alignment": "stretch"}
    return mel_window(np.asarray(values, dtype=np.float16), **{**settings, **changes})


@pytest.mark.parametrize(("stored", "frames", "step"), [(16, 8, 2), (9, 3, 3), (5, 5, 1), (40, 1, 7)])
def test_every_start_gives_a_window_inside_the_clip_and_the_next_one_would_not(stored, frames, step):
    count = start_count(stored, frames=frames, step=step)
    assert count - 1 + (frames - 1) * step == stored - 1


def test_a_clip_shorter_than_the_window_has_one_window_that_holds_the_last_frame():
    assert start_count(3, frames=6, step=1) == 1
    assert frame_indices(0, stored=3, frames=6, step=1).tolist() == [0, 1, 2, 2, 2, 2]


def test_a_clip_of_one_frame_is_that_frame_all_along():
    assert frame_indices(0, stored=1, frames=4, step=2).tolist() == [0, 0, 0, 0]


def test_a_window_as_long_as_its_log_mel_is_that_log_mel():
    values = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float16)
    np.testing.assert_array_equal(mel(values), values.astype(np.float32))


@pytest.mark.parametrize(("start_s", "frames"), [(0.0, 7), (0.033, 10), (0.05, 23)])
def test_stretching_is_linear_interpolation_at_equal_steps_from_the_start(start_s, frames):
    values = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float16)
    got = mel(values, start_s=start_s, window_s=0.2, frames=frames)
    # Frame i is centred at i hops; the padding of silence lies at -1 and 40.
    steps = start_s / 0.01 + np.arange(frames) * 20 / frames
    for band in range(2):
        padded = np.concatenate([[0.0], values[:, band].astype(np.float64), [0.0]])
        np.testing.assert_allclose(got[:, band], np.interp(steps, np.arange(42) - 1.0, padded), atol=1e-5)


def test_exact_alignment_takes_stored_frames_unchanged_whatever_the_window_length():
    values = np.arange(60, dtype=np.float16).reshape(30, 2)
    np.testing.assert_array_equal(mel(values, start_s=0.07, window_s=9.0, alignment="exact"), values[7:17])


@pytest.mark.parametrize("alignment", ["stretch", "exact"])
def test_sound_that_ends_before_the_window_is_followed_by_silence(alignment):
    got = mel(np.full((4, 1), 5.0), alignment=alignment)
    np.testing.assert_array_equal(got.ravel(), [5, 5, 5, 5, 0, 0, 0, 0, 0, 0])


def test_a_window_after_the_end_of_the_sound_is_silence():
    assert not mel(np.full((4, 1), 5.0), start_s=3.0).any()


def test_a_clip_without_a_single_log_mel_frame_is_silence():
    assert mel(np.zeros((0, 3))).shape == (10, 3)
    assert not mel(np.zeros((0, 3))).any()
