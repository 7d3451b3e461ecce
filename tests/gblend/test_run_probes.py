"""Probes of a run: they leave no trace, cost what is said, and end where asked."""

from dataclasses import replace

import pytest

from gblend import probes as probes_module
from gblend.config import BlendConfig, OptimConfig
from gblend.cost import branch_epochs
from gblend.records import (
    estimate_record,
    read_lines,
)
from gblend.training import Training
from tests.gblend.carried import (
    assert_same_bits,
    carry_out,
    carry_out_offline,
    estimates_of,
)
from tests.gblend.tiny import MODALITIES, tiny_config, tiny_data


def test_weights_given_by_hand_give_the_same_bits_as_the_offline_run_that_estimated_them(tmp_path):
    found = carry_out_offline(tmp_path)
    by_hand = tiny_config(blend=BlendConfig(fixed_weights=found.weights))
    carry_out(tmp_path / "fixed", "fixed", config=by_hand)
    assert_same_bits(tmp_path / "offline", tmp_path / "fixed")


def test_online_probes_leave_no_trace_in_the_run(tmp_path, monkeypatch):
    carry_out(tmp_path / "online", "online")
    recorded = {
        record.epoch: dict(zip(record.heads, record.weights, strict=True))
        for record in map(estimate_record, read_lines(str(tmp_path / "online" / "weights.jsonl")))
    }
    assert list(recorded) == [0, 2]

    def by_hand(self, ahead):
        return recorded[ahead.start_epoch]

    monkeypatch.setattr(Training, "weights_for", by_hand)
    carry_out(tmp_path / "by-hand", "online")
    assert_same_bits(tmp_path / "online", tmp_path / "by-hand")


def test_a_full_length_online_probe_equals_the_single_modality_run_but_for_its_random_stream(tmp_path, monkeypatch):
    """Offline's probes are the baselines; an online probe over all epochs is the same training."""
    config = tiny_config(blend=BlendConfig(first_epochs=3))
    train = probes_module.train_together
    monkeypatch.setattr(probes_module, "train_together", lambda *args, **kw: train(*args, **{**kw, "stream": 0}))
    offline = carry_out_offline(tmp_path, config)
    carry_out(tmp_path / "online", "online", config=config)
    online = estimate_record(read_lines(str(tmp_path / "online" / "weights.jsonl"))[0])
    assert online.weights == offline.weights
    assert online.end_valid == offline.end_valid


def test_an_online_probe_measures_every_epoch_only_where_its_end_is_chosen(tmp_path, monkeypatch):
    """Two probe epochs, then one, of each of four heads; where a probe starts, the run has been measured anyway."""
    measured = []
    measure_both = probes_module.measure_both
    monkeypatch.setattr(probes_module, "measure_both", lambda *args: measured.append(args) or measure_both(*args))
    counts = {}
    for end in ("last", "best-v"):
        measured.clear()
        blend = BlendConfig(first_epochs=2, next_epochs=1, probe_end=end)
        carry_out(tmp_path / end, "online", config=tiny_config(blend=blend))
        counts[end] = len(measured)
        first, second = estimates_of(tmp_path / end)
        assert set(first.end_epochs) <= ({2} if end == "last" else {1, 2})
        assert set(second.end_epochs) == {1}
    assert counts == {"last": 4 * (1 + 1), "best-v": 4 * (2 + 1)}


def test_smoothing_keeps_a_share_of_the_weights_of_the_super_epoch_before(tmp_path):
    blend = BlendConfig(first_epochs=2, next_epochs=1, smoothing=0.75, shrinkage=1.0)
    carry_out(tmp_path / "run", "online", config=tiny_config(blend=blend))
    first, second = (estimate_record(line) for line in read_lines(str(tmp_path / "run" / "weights.jsonl")))
    assert first.previous_weights == ()
    assert second.previous_weights == first.weights


def test_an_online_run_may_start_from_the_offline_estimate(tmp_path):
    config = tiny_config(blend=BlendConfig(first_epochs=2, next_epochs=1, reuse="offline"))
    offline = carry_out_offline(tmp_path, config)
    probes = {head: str(tmp_path / f"uni-{head}-s0") for head in MODALITIES} | {"fused": str(tmp_path / "naive-s0")}
    result = carry_out(tmp_path / "online", "online", config=config, probes=probes)
    first, second = estimates_of(tmp_path / "online")
    assert first == offline
    assert (second.epoch, second.probe_epochs) == (2, 1)
    # 3 epochs, 4 probes of 1 epoch, and 4 runs of 3 epochs that others paid for.
    assert (result.branch_epochs, result.borrowed_epochs) == (3 + 4 + 12, 12)
    assert branch_epochs("online", config, modalities=3) == 3 + 4


def test_probes_on_a_part_of_the_clips_cost_that_part(tmp_path):
    data = replace(tiny_data(), probe_part=list(range(12)), train_slice=list(range(9)))
    result = carry_out(tmp_path / "online", "online", data=data)
    assert result.branch_epochs == 3 + 0.5 * 4 * 3
    assert branch_epochs("online", tiny_config(), modalities=3, probe_share=0.5) == result.branch_epochs
    assert result.train_samples == 9 * 24


def test_probes_shorter_than_a_super_epoch_are_those_of_a_shorter_one_and_cost_less(tmp_path):
    short = tiny_config(blend=BlendConfig(first_epochs=2, next_epochs=1, probe_epochs=1))
    result = carry_out(tmp_path / "short", "online", config=short)
    carry_out(tmp_path / "one", "online", config=tiny_config(blend=BlendConfig(first_epochs=1, next_epochs=2)))
    first, second = estimates_of(tmp_path / "short")
    assert first == estimates_of(tmp_path / "one")[0]
    assert [(record.epoch, record.probe_epochs) for record in (first, second)] == [(0, 1), (2, 1)]
    assert result.branch_epochs == 3 + 4 * (1 + 1)


def test_an_online_run_is_the_same_whichever_way_its_probes_train(tmp_path):
    for kind in ("shared", "sequential"):
        carry_out(tmp_path / kind, "online", config=tiny_config(blend=BlendConfig(first_epochs=2, probes=kind)))
    assert_same_bits(tmp_path / "shared", tmp_path / "sequential")


@pytest.mark.parametrize("method", ["online", "tracked", "equal"])
def test_every_clip_is_decoded_once_an_epoch_for_the_run_and_once_for_all_its_probes(tmp_path, method):
    data = tiny_data()
    config = tiny_config(blend=BlendConfig(first_epochs=2, next_epochs=1, refit_epochs=0))
    carry_out(tmp_path / "run", method, data=data, config=config)
    drawn = [position for position, entropy in data.train.drawn if entropy is not None]
    times = 2 if method == "online" else 1
    assert sorted(drawn) == sorted(list(range(24)) * times * config.epochs)


def test_a_probe_that_ends_where_v_is_best_is_measured_after_every_epoch(tmp_path):
    """With a learning rate that spoils the second epoch, the first is the end."""
    blend = BlendConfig(first_epochs=2, next_epochs=1, probe_end="best-v")
    config = tiny_config(blend=blend, optim=OptimConfig(learning_rate=0.3, schedule="constant"))
    carry_out(tmp_path / "online", "online", config=config)
    last = replace(config, blend=replace(blend, probe_end="last"))
    carry_out(tmp_path / "last", "online", config=last)
    best, end = (estimates_of(tmp_path / name)[0] for name in ("online", "last"))
    assert best.start_valid == end.start_valid
    assert 1 in best.end_epochs
    for head, epoch, one, other in zip(best.heads, best.end_epochs, best.end_valid, end.end_valid, strict=True):
        assert one == other if epoch == 2 else one < other, head
