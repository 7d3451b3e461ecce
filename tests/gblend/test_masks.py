"""Masks over log-mel against torchaudio's, and what they leave alone."""

import numpy as np
import pytest
import torch
import torchaudio

from gblend.masks import blot_out, draw_masks, mask_span


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mask_is_the_one_torchaudio_makes_of_the_same_numbers(axis):
    logmel = torch.arange(1.0, 61.0 * 40 + 1).reshape(61, 40)
    for seed in range(50):
        torch.manual_seed(seed)
        mask = float(torch.rand(1)), float(torch.rand(1))
        torch.manual_seed(seed)
        expected = torchaudio.functional.mask_along_axis(logmel[None], 12, -7.0, axis + 1)[0]
        over = {"frames": (mask,), "bands": ()} if axis == 0 else {"frames": (), "bands": (mask,)}
        got = blot_out(logmel.numpy(), **over, frames_width=12, bands_width=12, fill=-7.0)
        np.testing.assert_array_equal(got, expected.numpy())


def test_masks_lie_almost_everywhere_and_are_of_every_width_below_the_greatest():
    spans = [mask_span(m, width=6, size=20) for m in draw_masks(np.random.default_rng(0), 3000)]
    assert {span.stop - span.start for span in spans} == set(range(6))
    assert {i for span in spans for i in range(span.start, span.stop)} >= set(range(19))  # both ends are rounded down


def test_more_masks_leave_the_first_ones_where_they_are():
    one, three = (draw_masks(np.random.default_rng(5), count) for count in (1, 3))
    assert three[:1] == one
    assert len(set(three)) == 3


def test_the_stored_log_mel_is_not_touched():
    logmel = np.ones((8, 4), np.float32)
    blot_out(logmel, frames=((0.9, 0.5),), frames_width=4, bands=((0.9, 0.5),), bands_width=2, fill=0.0)
    assert logmel.all()
