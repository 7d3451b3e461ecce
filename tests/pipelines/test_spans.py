from pipelines.spans import scaled_size, stored_before, stored_count


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
