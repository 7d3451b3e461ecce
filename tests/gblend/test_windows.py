"""Where windows lie in a clip, against numpy's own interpolation and counting by hand."""

import numpy as np
import pytest

from gblend.windows import audio_mask, frame_indices, mel_positions, mel_window, start_count


def positions(**changes):
    settings = {"start_s": 0.0, "window_s": 0.1, "hop_s": 0.01, "frames": 10, "alignment": "stretch"}
    return mel_positions(**{**settings, **changes})


def mel(values, *, silence=0.0, **changes):
    return mel_window(np.asarray(values, dtype=np.float16), positions(**changes), silence=silence)


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


@pytest.mark.parametrize("silence", [0.0, -4.5])
@pytest.mark.parametrize("alignment", ["stretch", "exact"])
def test_sound_that_ends_before_the_window_is_followed_by_the_recipes_silence(alignment, silence):
    got = mel(np.full((4, 1), 5.0), alignment=alignment, silence=silence)
    np.testing.assert_array_equal(got.ravel(), [5.0] * 4 + [silence] * 6)


@pytest.mark.parametrize(
    ("settings", "heard"),
    [
        # Frames at 0, 10 ... 90 ms; sound in [25, 60) ms.
        ({}, [3, 4, 5]),
        ({"alignment": "exact"}, [3, 4, 5]),
        # 10 frames over 40 ms from 20 ms: at 20, 24, 28 ... 56 ms.
        ({"start_s": 0.02, "window_s": 0.04}, [2, 3, 4, 5, 6, 7, 8, 9]),
        ({"start_s": 0.02, "alignment": "exact"}, [1, 2, 3]),
        ({"start_s": 0.06}, []),
    ],
)
def test_real_sound_lies_where_a_frames_centre_does(settings, heard):
    mask = audio_mask(positions(**settings), hop_s=0.01, first_centre_s=0.0, audio_start_s=0.025, audio_end_s=0.06)
    assert np.flatnonzero(mask).tolist() == heard


def test_a_window_that_begins_at_its_hop_is_centred_half_a_window_later():
    mask = audio_mask(positions(), hop_s=0.01, first_centre_s=0.0125, audio_start_s=0.025, audio_end_s=0.06)
    assert np.flatnonzero(mask).tolist() == [2, 3, 4]  # centred at 32.5, 42.5 and 52.5 ms


def test_every_hop_that_begins_in_the_sound_is_heard_however_its_instant_is_rounded():
    for start in range(0, 500, 7):
        mask = audio_mask(
            np.arange(600.0), hop_s=0.01, first_centre_s=0.0, audio_start_s=start / 100, audio_end_s=(start + 50) / 100
        )
        assert np.flatnonzero(mask).tolist() == list(range(start, start + 50))


def test_a_window_after_the_end_of_the_sound_is_silence():
    assert not mel(np.full((4, 1), 5.0), start_s=3.0).any()


def test_a_clip_without_a_single_log_mel_frame_is_silence():
    assert mel(np.zeros((0, 3))).shape == (10, 3)
    assert not mel(np.zeros((0, 3))).any()
