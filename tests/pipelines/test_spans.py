import numpy as np

from pipelines.spans import pick, scaled_size, stored_before, stored_count


def test_picking_agrees_with_asking_for_the_last_frame_at_every_instant():
    rng = np.random.default_rng(1)
    pts_s = np.cumsum(rng.uniform(0.01, 0.2, 50))
    picked = pick(pts_s, rate_hz=15.0, duration_s=float(pts_s[-1]))
    for i, index in enumerate(picked):
        shown = [k for k, t in enumerate(pts_s) if t <= i / 15.0 + 1e-3]
        assert index == (shown[-1] if shown else 0)


def test_a_constant_rate_that_divides_the_source_takes_every_second_frame():
    picked = pick(np.arange(60) / 30.0, rate_hz=15.0, duration_s=2.0)
    assert picked.tolist() == list(range(0, 60, 2))


def test_time_stamps_rounded_to_milliseconds_pick_the_same_frames_as_exact_ones():
    exact = np.arange(60) / 30.0
    for rate_hz in (15.0, 10.0, 30.0):
        rounded = pick(exact.round(3), rate_hz=rate_hz, duration_s=2.0)
        assert rounded.tolist() == pick(exact, rate_hz=rate_hz, duration_s=2.0).tolist()


def test_counts_add_up_over_the_frames_of_a_stream():
    ends = [0.04, 0.3, 0.31, 1.0]
    due = [stored_before(t, 8.0) for t in ends]
    assert due == [1, 3, 3, 8]
    assert stored_count(1.0, 8.0) == due[-1]


def test_the_other_side_is_even_and_the_short_side_exact():
    for width in range(130, 200):
        height, scaled = scaled_size(height=120, width=width, pixel_aspect=1.0, short_side_px=96, fixed_size_px=None)
        assert height == 96
        assert scaled % 2 == 0
        assert abs(scaled - width * 0.8) <= 1
