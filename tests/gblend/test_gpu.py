"""What can only be seen on a CUDA device; skipped without one."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from gblend.config import BlendConfig, ComputeConfig, OptimConfig
from gblend.loop import Position, train
from gblend.measure import measure
from gblend.methods import RunSpec
from gblend.model import make_model
from gblend.online_blend import OnlineBlend
from gblend.own_network import answer
from gblend.records import RunResult
from gblend.runner import Runner
from gblend.runs import load_run
from tests.gblend.own_loop import HELDOUT, TRAINING, net
from tests.gblend.stops import stop_before
from tests.gblend.tiny import CLASSES, MODALITIES, tiny_config, tiny_data

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

BLEND = BlendConfig(first_epochs=2, next_epochs=1, refit_epochs=1)


def carry_out(place: Path, device: torch.device, compute: ComputeConfig | None = None, **changes) -> RunResult:
    config = tiny_config(blend=BLEND, optim=OptimConfig(learning_rate=0.01), **changes)
    runner = Runner(
        data=tiny_data(), config=config, data_path="memory", device=device, compute=compute or ComputeConfig()
    )
    return runner.run(RunSpec(method="online", seed=0), str(place))


def losses_of(place: Path) -> torch.Tensor:
    """Held-out losses of all heads after all epochs."""
    history = load_run(str(place)).history
    return torch.tensor([[score.loss_nats for score in record.heldout.values()] for record in history])


@pytest.fixture(scope="module")
def cuda() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="module")
def on_the_gpu(cuda, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("gpu") / "run"
    carry_out(place, cuda)
    return place


def test_losses_of_a_network_are_those_of_the_cpu(cuda):
    network, data = make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=0), tiny_data()
    expected = measure(network, data.heldout, spec=data.spec)
    found = measure(network.to(cuda), data.heldout, spec=data.spec)
    for head, losses in expected.items():
        torch.testing.assert_close(
            torch.from_numpy(found[head].loss_nats), torch.from_numpy(losses.loss_nats), rtol=1e-2, atol=1e-2
        )


def test_a_run_learns_what_it_learns_on_the_cpu(on_the_gpu, tmp_path):
    """Dropout draws from other generators, so only about: within what another seed changes."""
    carry_out(tmp_path / "run", torch.device("cpu"))
    torch.testing.assert_close(losses_of(on_the_gpu), losses_of(tmp_path / "run"), rtol=0.25, atol=0.1)


@pytest.mark.parametrize(
    ("compute", "changes"),
    [
        (ComputeConfig(), {"precision": "bf16"}),
        (ComputeConfig(memory_format="contiguous"), {}),
        (ComputeConfig(compile="inductor"), {}),
        (ComputeConfig(compile="inductor", memory_format="contiguous"), {"precision": "bf16"}),
        (ComputeConfig(), {"micro_batches": 2, "batch_norm": "sync"}),
    ],
    ids=["bf16", "contiguous", "compiled", "all three", "in pieces"],
)
def test_options_of_the_step_change_little_of_what_is_learned(on_the_gpu, cuda, tmp_path, compute, changes):
    carry_out(tmp_path / "run", cuda, compute, **changes)
    torch.testing.assert_close(losses_of(tmp_path / "run"), losses_of(on_the_gpu), rtol=0.25, atol=0.1)


@pytest.mark.parametrize("moment", ["epochs: step", "weights: step"])
def test_a_run_that_is_stopped_goes_on(on_the_gpu, cuda, tmp_path, moment):
    often = ComputeConfig(checkpoint_every=1)
    stop_before(lambda: carry_out(tmp_path / "run", cuda, often), moment, times=3)
    carry_out(tmp_path / "run", cuda, often)
    torch.testing.assert_close(losses_of(tmp_path / "run"), losses_of(on_the_gpu), rtol=1e-3, atol=1e-3)


def test_no_step_waits_for_what_the_gpu_has_still_to_do(cuda):
    data, config = tiny_data(), tiny_config(micro_batches=2)
    network = make_model(MODALITIES, len(CLASSES), config.model, seed=0).to(cuda)
    weights = dict.fromkeys(network.head_names, 0.25)
    train(network, data, config, weights=weights, position=Position(start_epoch=0, epochs=1), seed=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(network, data, config, weights=weights, position=Position(start_epoch=1, epochs=1), seed=0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_stays_where_it_is_from_super_epoch_to_super_epoch(cuda, tmp_path):
    """Probes and their optimisers are given back."""
    carry_out(tmp_path / "short", cuda, epochs=3)
    torch.cuda.reset_peak_memory_stats(cuda)
    carry_out(tmp_path / "one", cuda, epochs=3)
    once = torch.cuda.max_memory_allocated(cuda)
    torch.cuda.reset_peak_memory_stats(cuda)
    carry_out(tmp_path / "many", cuda, epochs=8)
    assert torch.cuda.max_memory_allocated(cuda) <= 1.1 * once


def test_asking_for_weights_in_a_loop_of_ones_own_draws_nothing_and_measures_where_the_network_is(cuda):
    measured_on = set()

    def forward(network, batch):
        logits, labels = answer(network, batch)
        measured_on.add(labels.device)
        return logits, labels

    def train_probe(branch, probe):
        for batch in DataLoader(TRAINING, 16, shuffle=True):
            logits, labels = answer(branch, batch)  # draws dropout masks on the GPU
            torch.nn.functional.cross_entropy(logits[probe.head], labels).backward()
        branch.cpu()  # as Lightning's trainer leaves it

    network, before = net().to(cuda), torch.cuda.get_rng_state(cuda)
    blend = OnlineBlend(
        epochs=1,
        train=train_probe,
        train_batches=DataLoader(TRAINING, 16),
        valid_batches=DataLoader(HELDOUT, 16),
        forward=forward,
    )
    blend.weights_at(0, network)
    assert torch.equal(torch.cuda.get_rng_state(cuda), before)
    assert measured_on == {cuda}
