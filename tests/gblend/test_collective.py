"""One worker and two agree. Two processes meet through a file, once for all tests: starting them is what takes time."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from gblend import collective
from gblend.batch_norm import SharedBatchNorm
from gblend.batches import measuring_loader, training_batches
from gblend.config import BlendConfig, ComputeConfig, EncodersConfig, LossConfig, OptimConfig
from gblend.estimate import ProbeLosses, estimate
from gblend.inputs import to_inputs
from gblend.loop import Learner, Position, make_optimizer, train, train_together
from gblend.loss import LearnedWeights
from gblend.measure import measure, measure_outputs
from gblend.methods import RunSpec
from gblend.model import make_model
from gblend.outputs import load_outputs
from gblend.predictions import score_predictions
from gblend.prepare import prepare
from gblend.probes import Probes
from gblend.records import REFIT, to_json
from gblend.run_state import moments_state
from gblend.runner import Runner
from tests.gblend.tiny import CLASSES, EVENT, MODALITIES, TASK, VERB, MemoryClips, tiny_config, tiny_data

HEADS = (*MODALITIES, "fused")
ABSENT = {"logmel": [0, 3, 4]}
"""Clips without sound, so that workers' shares of a batch differ in what they can count."""

BY_ACCURACY = {"measure": "accuracy", "overfitting_floor": "standard-error", "fused_floor": 0.2}
ZERO_BUT_ONE = {"rgb": 0.0, "flow": 0.0, "logmel": 1.0, "fused": 0.0}
STEPS = ("blend", "weighted", "learned", "modulated", "probes", "tasks")
"""Ways to train: a blend, with class weights, with learned weights, with modulated gradients, branches side by side,
and several tasks, one of several labels, with unlabelled clips."""

PIECES = ("blend", "learned", "modulated", "tasks", "scarce")
"""Those to take in three pieces a worker; of ``scarce`` no worker's last piece has a sound, but one's first has."""

TASKS = (replace(VERB, name="unlabelled"), replace(EVENT, name="event-unlabelled"))
"""Every fourth clip has no label, so that workers' shares differ in what they can count."""

TWO_EPOCHS = Position(start_epoch=0, epochs=2)


def joint():
    return make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=0)


def odd_data(tasks=(TASK,)):
    return tiny_data(train=25, heldout=9, absent=ABSENT, tasks=tasks)


def scarce_data():
    """Sounds in two clips, the first of worker 0 and with one worker in the first piece of three."""
    (batch,) = training_batches(25, batch_size=100, entropy=(0, 0, 0), rank=0, world=2)
    silent = [i for i in range(25) if i not in batch[:2]]
    return replace(odd_data(), train=MemoryClips(25, seed=1, absent={"logmel": silent}))


def of_tasks():
    return make_model(MODALITIES, {task.name: len(task.classes) for task in TASKS}, tiny_config().model, seed=0)


def trained(weights: dict[str, float]) -> dict[str, torch.Tensor]:
    network = joint()
    train(network, odd_data(), tiny_config(), weights=weights, position=TWO_EPOCHS, seed=0)
    return network.state_dict()


def one_sgd_step(kind: str, *, micro_batches: int = 1) -> dict[str, torch.Tensor]:
    """All clips in one batch, without dropout or BatchNorm's batch statistics: the shares must not matter."""
    loss = LossConfig(label_smoothing=0.1, class_weights=(0.2, 1.0, 3.0) if kind == "weighted" else "equal")
    optim = OptimConfig(learning_rate=0.1, schedule="constant")
    missing = "zero" if kind == "scarce" else "drop"
    config = tiny_config(batch_size=100, optim=optim, loss=loss, missing=missing, micro_batches=micro_batches)
    networks = {"blend": of_tasks() if kind == "tasks" else joint()}
    if kind == "probes":
        networks = {head: joint().branch(head) for head in HEADS}
    if kind == "modulated":
        networks = {"fused": joint().branch("fused")}
    learned = LearnedWeights(HEADS)
    weights = learned if kind == "learned" else {"rgb": 0.4, "flow": 0.3, "logmel": 0.2, "fused": 0.1}
    if kind == "tasks":
        weights = {head: 0.1 * at for at, head in enumerate(networks["blend"].head_names)}
    learners = []
    for name, network in networks.items():
        if "fused" in network.branches:
            network.heads["fused"][0].p = 0.0
        # Frozen in eval mode, whoever asks for training.
        network.train = lambda mode=True, network=network: type(network).train(network, False)  # type: ignore
        learners.append(
            Learner(
                model=network,
                weights=weights if name == "blend" else {name: 1.0},
                optimizer=make_optimizer(network, config, learned if kind == "learned" else None),
                ogm_alpha=0.5 if kind == "modulated" else None,
            )
        )
    data = {"tasks": lambda: odd_data(TASKS), "scarce": scarce_data}.get(kind, odd_data)()
    train_together(learners, data, config, position=Position(start_epoch=0, epochs=1), seed=0)
    found = {
        f"{name}.{key}": values for name, network in networks.items() for key, values in network.named_parameters()
    }
    return {**found, "log_variance": learned.log_variance}


def clips_to_normalise() -> tuple[torch.Tensor, torch.Tensor]:
    """Seven clips far from zero, and what comes back for each."""
    generator = torch.Generator().manual_seed(0)
    x, upstream = torch.randn(2, 7, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    return 2.0 * x + 50.0, upstream


def shared_norm() -> dict:
    """Five of the clips on worker 0 and two on worker 1, and before that all of them on worker 0."""
    norm = SharedBatchNorm.of(nn.BatchNorm3d(3, dtype=torch.float64))
    x, upstream = clips_to_normalise()
    norm(x[:7] if collective.rank() == 0 else x[7:])
    own = slice(0, 5) if collective.rank() == 0 else slice(5, 7)
    x = x[own].requires_grad_()
    output = norm(x)
    output.backward(upstream[own])
    return {
        "output": output.detach(),
        "gradient": x.grad,
        "scale": norm.weight.grad,
        "offset": norm.bias.grad,
        "buffers": dict(norm.named_buffers()),
    }


def one_step_of_shared_norms(missing: str) -> dict[str, torch.Tensor]:
    """In training mode but without dropout; with ``zero``, worker 1 has no sound at all."""
    optim = OptimConfig(learning_rate=0.1, schedule="constant")
    config = tiny_config(batch_size=100, optim=optim, missing=missing, batch_norm="sync")
    network = joint()
    network.heads["fused"][0].p = 0.0
    prepare(network, config, ComputeConfig())
    data = scarce_data() if missing == "zero" else odd_data()
    train(
        network,
        data,
        config,
        weights=dict.fromkeys(HEADS, 0.25),
        position=Position(start_epoch=0, epochs=1),
        seed=0,
    )
    return network.state_dict()


def measured(network) -> dict[str, np.ndarray]:
    data = odd_data()
    return {name: losses.loss_nats for name, losses in measure(network, data.heldout, spec=data.spec).items()}


def settled(seed: int):
    """An untrained network whose running statistics are those of V: its answers then depend on the clip."""
    network, data = make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=seed), odd_data()
    (batch,) = measuring_loader(data.heldout, range(9), batch_size=9, rank=0, world=1)
    inputs = to_inputs(batch.arrays, data.spec)
    with torch.no_grad():
        for _ in range(30):
            network(inputs, batch.present)
    return network


def outputs(network) -> dict:
    data = odd_data()
    return dataclasses.asdict(measure_outputs(network, data.heldout, spec=data.spec)[""])


def measured_tasks() -> dict:
    """Losses, metrics and outputs of two tasks, one of several labels."""
    network, data = of_tasks(), odd_data(TASKS)
    losses = measure(network, data.heldout, spec=data.spec)
    said = measure_outputs(network, data.heldout, spec=data.spec)
    return {
        "metrics": {head: found.score().metrics for head, found in losses.items()},
        "correct": {head: found.correct for head, found in losses.items()},
        "outputs": {key: dataclasses.asdict(found) for key, found in said.items()},
    }


def outputs_of_one_clip() -> dict:
    """Fewer clips than workers: one of them has nothing to do."""
    data = odd_data()
    return dataclasses.asdict(measure_outputs(joint(), data.heldout, [4], spec=data.spec)[""])


class Careless(nn.Module):
    """A user's network that changes its input in place and has a layer it does not use."""

    output_dim = 3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(channels, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x.sub_(0.5).mean(dim=(2, 3, 4)))


def with_a_careless_network() -> dict[str, torch.Tensor]:
    own = EncodersConfig(rgb="tests.gblend.test_collective:Careless")
    network = make_model(MODALITIES, len(CLASSES), replace(tiny_config().model, encoders=own), seed=0)
    train(network, odd_data(), tiny_config(), weights=dict.fromkeys(HEADS, 0.25), position=TWO_EPOCHS, seed=0)
    return network.state_dict()


def estimated(**options) -> dict:
    """Probes whose two ends are checkpoints made from seeds, so that only the measuring differs."""
    data = odd_data()
    ends = [settled(seed) for seed in (0, 1)]
    on = [
        (measure(m, data.train, data.train_slice, spec=data.spec), measure(m, data.heldout, spec=data.spec))
        for m in ends
    ]
    probes = {
        head: ProbeLosses(
            start_train=on[0][0][head], start_valid=on[0][1][head], end_train=on[1][0][head], end_valid=on[1][1][head]
        )
        for head in HEADS
    }
    return to_json(estimate(probes, BlendConfig(**options), epoch=0, probe_epochs=1))


def averaged() -> dict[str, torch.Tensor]:
    network = joint()
    for buffer in network.buffers():
        buffer.fill_(4 + 2 * collective.rank())  # 4 and 6
    collective.average_buffers(network)
    return dict(network.named_buffers())


def online(directory: Path) -> dict:
    runner = Runner(data=odd_data(), config=tiny_config(), data_path="memory")
    result = runner.run(RunSpec(method="online", seed=0), str(directory))
    again = runner.run(RunSpec(method="online", seed=0), str(directory))
    # What worker 0 wrote, scored again without the network.
    kept = load_outputs(str(directory / "predictions.npz"))
    splits = {split: one for split, one in kept.items() if split != "heldout"}
    return {
        "scores": dataclasses.asdict(result)["scores"],
        "again": dataclasses.asdict(again)["scores"],
        "predictions": result.predictions,
        "from file": score_predictions(kept["heldout"], splits),
    }


def everything(directory: Path) -> dict:
    return {
        "measured": measured(joint()),
        "outputs": outputs(joint()),
        "tasks": measured_tasks(),
        "one clip": outputs_of_one_clip(),
        "careless": with_a_careless_network(),
        "estimated": estimated(),
        "by accuracy": estimated(**BY_ACCURACY),
        "step": {kind: one_sgd_step(kind) for kind in STEPS},
        "pieces": {kind: one_sgd_step(kind, micro_batches=3) for kind in PIECES},
        "shared norm": shared_norm(),
        "shared norms": {missing: one_step_of_shared_norms(missing) for missing in ("drop", "zero")},
        "trained": trained(dict.fromkeys(HEADS, 0.25)),
        "zero": trained(ZERO_BUT_ONE),
        "averaged": averaged(),
        "agreed": [collective.everywhere(yes, device=torch.device("cpu")) for yes in (True, collective.rank() == 0)],
        "online": online(directory / "run"),
        "sent": collective.values_of_worker_0(
            {"who": collective.rank(), "values": torch.full((3,), collective.rank() + 0.5)}, device=torch.device("cpu")
        ),
        "probed": probed_here_and_elsewhere(),
    }


def probed_here_and_elsewhere() -> list[dict]:
    """Losses at the ends of probes that both workers trained, and of the same when worker 0 was given them in parts."""
    found, data, answers = [], odd_data(), {}
    for way in ("shared", "spread"):
        config = tiny_config(blend=BlendConfig(probes=way))
        probes = Probes(model=joint(), data=data, config=config, ahead=TWO_EPOCHS, seed=0)
        if way == "spread" and collective.rank() == 0:
            parts = [{}, {"fused": answers["fused"], "rgb": answers["rgb"]}, {"flow": answers["flow"]}, answers]
            probes.elsewhere = lambda task, parts=parts: lambda: parts.pop(0)
        probes.run()
        answers = {name: moments_state(moments) for name, moments in probes.moments.items()}
        found.append({name: probes.moments[name][-1].heldout[name].loss_nats for name in HEADS})
    return found


def work(rank: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    try:
        torch.save(everything(directory), directory / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    directory = tmp_path_factory.mktemp("two")
    mp.spawn(work, args=(directory,), nprocs=2)
    return [torch.load(directory / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_losses_of_an_odd_number_of_clips_are_those_one_worker_measures(two):
    for head, losses in measured(joint()).items():
        np.testing.assert_allclose(two[0]["measured"][head], losses, rtol=1e-6)
        np.testing.assert_array_equal(two[0]["measured"][head], two[1]["measured"][head])


def test_outputs_of_an_odd_number_of_clips_are_those_one_worker_measures(two):
    expected = outputs(joint())
    for part in ("log_probs", "counted", "labels", "positions"):
        np.testing.assert_allclose(two[0]["outputs"][part], expected[part], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(two[0]["outputs"][part], two[1]["outputs"][part])


def test_metrics_of_several_labels_and_tasks_are_those_one_worker_measures(two):
    expected = measured_tasks()
    for head, metrics in expected["metrics"].items():
        assert two[0]["tasks"]["metrics"][head] == pytest.approx(metrics, rel=1e-6), head
        assert two[0]["tasks"]["metrics"][head] == two[1]["tasks"]["metrics"][head]
        np.testing.assert_allclose(two[0]["tasks"]["correct"][head], expected["correct"][head])
    for key, said in expected["outputs"].items():
        for part in ("log_probs", "counted", "labels"):
            np.testing.assert_allclose(two[0]["tasks"]["outputs"][key][part], said[part], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", ["generalization", "overfitting", "weights", "overfitting_se", "weights_se"])
@pytest.mark.parametrize(("run", "options"), [("estimated", {}), ("by accuracy", BY_ACCURACY)])
def test_the_estimate_from_given_checkpoints_is_that_of_one_worker(two, run, options, part):
    np.testing.assert_allclose(two[0][run][part], estimated(**options)[part], rtol=1e-5, atol=1e-7)
    assert two[0][run] == two[1][run]


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_on_shares_that_differ_in_size_and_in_missing_sound_is_that_of_the_whole_batch(two, kind):
    for name, values in one_sgd_step(kind).items():
        torch.testing.assert_close(two[0]["step"][kind][name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", PIECES)
def test_a_step_in_pieces_is_that_of_the_whole_batch_on_one_worker_and_on_two(two, kind):
    alone = one_sgd_step(kind, micro_batches=3)
    for name, values in one_sgd_step(kind).items():
        torch.testing.assert_close(alone[name], values, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(two[0]["pieces"][kind][name], values, rtol=1e-4, atol=1e-6)
        assert torch.equal(two[0]["pieces"][kind][name], two[1]["pieces"][kind][name])


def test_batch_norm_over_workers_is_batch_norm_of_all_their_clips(two):
    x, upstream = clips_to_normalise()
    norm = nn.BatchNorm3d(3, dtype=torch.float64)
    x.requires_grad_()
    outputs = [norm(x) for _ in range(2)]
    outputs[-1].backward(upstream)
    both = [found["shared norm"] for found in two]
    torch.testing.assert_close(torch.cat([each["output"] for each in both]), outputs[-1].detach())
    torch.testing.assert_close(torch.cat([each["gradient"] for each in both]), x.grad)
    torch.testing.assert_close(both[0]["scale"] + both[1]["scale"], norm.weight.grad)
    torch.testing.assert_close(both[0]["offset"] + both[1]["offset"], norm.bias.grad)
    for name, values in norm.named_buffers():
        for each in both:
            torch.testing.assert_close(each["buffers"][name], values)


@pytest.mark.parametrize("missing", ["drop", "zero"])
def test_a_step_with_batch_norm_over_workers_is_that_of_one_worker(two, missing):
    for name, values in one_step_of_shared_norms(missing).items():
        torch.testing.assert_close(two[0]["shared norms"][missing][name], values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("run", ["trained", "zero"])
def test_workers_end_with_the_same_parameters_and_the_same_buffers(two, run):
    for name, values in two[0][run].items():
        assert torch.equal(values, two[1][run][name]), name


def test_heads_of_weight_zero_neither_hang_two_workers_nor_move(two):
    before = joint()
    for name, _ in before.named_parameters():
        same = torch.equal(two[0]["zero"][name], before.state_dict()[name])
        assert same is ("logmel" not in name), name


def test_running_statistics_become_the_mean_and_counters_stay(two):
    for name, values in two[0]["averaged"].items():
        assert (values == (4 if name.endswith("num_batches_tracked") else 5)).all(), name


def test_workers_agree_only_on_what_all_of_them_found(two):
    assert [found["agreed"] for found in two] == [[True, False]] * 2


def test_all_workers_have_the_values_of_worker_0(two):
    for found in two:
        assert found["sent"]["who"] == 0
        assert found["sent"]["values"].tolist() == [0.5] * 3


def test_all_workers_have_the_probes_that_worker_0_gets_from_elsewhere(two):
    here, elsewhere = two[0]["probed"]
    for found in (elsewhere, *two[1]["probed"]):
        for head in HEADS:
            np.testing.assert_array_equal(found[head], here[head])


def test_a_whole_online_run_gives_every_worker_the_same_scores_and_is_read_back(two):
    assert two[0]["online"]["scores"] == two[1]["online"]["scores"]
    assert all(found["online"]["again"] == found["online"]["scores"] for found in two)


def test_every_worker_of_a_run_knows_the_predictions_that_its_file_gives(two):
    known, again = two[0]["online"]["predictions"], two[0]["online"]["from file"]
    assert known == two[1]["online"]["predictions"]
    for split, ways in known.scores.items():
        assert {**again.scores[split], REFIT: ways[REFIT]} == ways  # of a head that the file does not hold
    assert known.stack_weights == again.stack_weights


def test_alone_every_collective_is_the_identity():
    values = torch.tensor([1.0, 2.0])
    network = joint()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    collective.average_buffers(network)
    collective.wait_for_all()
    assert (collective.rank(), collective.world_size()) == (0, 1)
    assert collective.sum_over_workers(values).tolist() == [1.0, 2.0]
    assert collective.share_gradients(network, unused=True) is network
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_a_worker_without_a_clip_takes_part_in_keeping_outputs(two):
    alone = outputs_of_one_clip()
    for found in two:
        np.testing.assert_allclose(found["one clip"]["log_probs"], alone["log_probs"], atol=1e-6)
        assert found["one clip"]["labels"].tolist() == alone["labels"].tolist()


def test_two_workers_train_a_users_network_that_leaves_a_layer_unused(two):
    parts = two[0]["careless"]
    assert any("unused" in name for name in parts)
    for name, values in parts.items():
        assert torch.equal(values, two[1]["careless"][name]), name
