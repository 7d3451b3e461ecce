"""Which windows a clip is looked at through, and what the mean over them is."""

import numpy as np
import pytest
import torch
from torchvision.datasets.video_utils import unfold

from gblend.views import Views, crop_places, even_starts, mean_over_views


@pytest.mark.parametrize("starts", [1, 2, 3, 9, 10, 11, 37, 400])
@pytest.mark.parametrize("clips", [2, 3, 10])
def test_starts_are_those_of_torchvisions_uniform_sampler(starts, clips):
    windows = unfold(torch.arange(starts), size=1, step=1)  # one a start, as the sampler counts the clips of a video
    expected = windows[torch.linspace(0, starts - 1, steps=clips, dtype=torch.float64).floor().long(), 0]
    assert even_starts(starts, clips) == expected.tolist()


def test_a_clip_with_fewer_starts_than_windows_repeats_them_and_leaves_none_out():
    found = even_starts(3, 10)
    assert (len(found), set(found)) == (10, {0, 1, 2})


def test_one_window_is_the_central_one():
    (window,) = Views(clips=1).windows(starts=12, height=4, width=4)
    assert (window.start_frame, window.top, window.left, window.mirrored) == (5, 0.5, 0.5, False)


@pytest.mark.parametrize(("height", "width", "axis"), [(30, 20, 0), (20, 30, 1), (20, 20, 1)])
def test_three_crops_lie_along_the_longer_side(height, width, axis):
    places = np.array(crop_places("three", height=height, width=width))
    assert places[:, axis].tolist() == [0.0, 0.5, 1.0]
    assert places[:, 1 - axis].tolist() == [0.5] * 3


def test_thirty_views_are_ten_windows_of_three_crops():
    views = Views(clips=10, crops="three")
    windows = views.windows(starts=50, height=3, width=4)
    assert len({(w.start_frame, w.top, w.left) for w in windows}) == len(windows) == views.count == 30


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0, 80.0])
def test_the_mean_of_one_view_is_that_view_to_the_bit(several, scale):
    logits = torch.randn(1, 50, 20, generator=torch.Generator().manual_seed(0)) * scale
    said = (torch.nn.functional.logsigmoid(logits) if several else logits.log_softmax(dim=2)).numpy()
    np.testing.assert_array_equal(mean_over_views(said, several=several), said[0])


def test_the_mean_is_of_probabilities_of_softmax_and_of_sigmoid():
    logits = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for several, log_probs in ((False, logits.log_softmax(dim=2)), (True, torch.nn.functional.logsigmoid(logits))):
        expected = log_probs.exp().mean(dim=0).numpy()
        np.testing.assert_allclose(np.exp(mean_over_views(log_probs.numpy(), several=several)), expected, rtol=1e-12)


def test_digits_of_nearly_certain_labels_survive_the_mean():
    unlikely = np.array([1e-20, 3e-20])  # of not having the label
    mean = mean_over_views(np.log1p(-unlikely)[:, None, None], several=True)
    np.testing.assert_allclose(-np.expm1(mean), [[2e-20]], rtol=1e-12)


def test_a_view_without_a_number_leaves_the_clip_without_one():
    said = np.log(np.array([[[0.5, 0.5]], [[np.nan, 0.5]]]))
    for several in (False, True):
        assert np.isnan(mean_over_views(said, several=several)).tolist() == [[True, False]]


def test_no_window_at_all_is_refused():
    with pytest.raises(ValueError, match="clips must be at least 1, got 0"):
        Views(clips=0)
