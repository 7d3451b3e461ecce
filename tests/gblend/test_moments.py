"""Moments of a network: written, read back to the bit, and no code read with them."""

import numpy as np
import pytest

from gblend.config import BlendConfig
from gblend.measure import HeadLosses
from gblend.moments import PARTS, SETS, Measured, load_moments, save_moments
from gblend.probes import losses_of


def losses(seed: int, clips: int = 7) -> HeadLosses:
    rng = np.random.default_rng(seed)
    loss = np.where(rng.random(clips) < 0.2, np.nan, rng.random(clips))
    return HeadLosses(loss_nats=loss, correct=rng.random(clips) < 0.5, counted=rng.random(clips) < 0.7)


def moment(seed: int) -> Measured:
    return Measured(
        train={"rgb": losses(seed), "fused": losses(seed + 1)},
        heldout={"rgb": losses(seed + 2, clips=5), "fused": losses(seed + 3, clips=5)},
    )


def test_saved_moments_come_back_to_the_bit(tmp_path):
    written = [moment(seed) for seed in (0, 10, 20)]
    save_moments(str(tmp_path / "losses.npz"), written)
    found = load_moments(str(tmp_path / "losses.npz"))
    assert len(found) == 3
    for one, other in zip(written, found, strict=True):
        for name in SETS:
            assert list(getattr(other, name)) == ["rgb", "fused"]
            for head in ("rgb", "fused"):
                for part in PARTS:
                    left, right = (getattr(getattr(m, name)[head], part) for m in (one, other))
                    assert left.dtype == right.dtype
                    np.testing.assert_array_equal(left, right)


def test_a_finished_run_is_a_probe_to_the_end_or_to_its_best_epoch(tmp_path):
    def on_v(loss: float) -> Measured:
        same = HeadLosses(loss_nats=np.full(3, loss), correct=np.zeros(3, bool), counted=np.ones(3, bool))
        return Measured(train={"rgb": same}, heldout={"rgb": same})

    save_moments(str(tmp_path / "losses.npz"), [on_v(loss) for loss in (2.0, 1.0, 0.5, 1.5)])
    found = load_moments(str(tmp_path / "losses.npz"))
    last, best = (losses_of(found, "rgb", BlendConfig(probe_end=end)) for end in ("last", "best-v"))
    assert (last.end_epoch, last.end_valid.mean("loss")) == (None, 1.5)
    assert (best.end_epoch, best.end_valid.mean("loss")) == (2, 0.5)


def test_nothing_is_unpickled_from_a_losses_file(tmp_path):
    np.savez(tmp_path / "losses.npz", heads=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_moments(str(tmp_path / "losses.npz"))
