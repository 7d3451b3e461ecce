"""The callback in fits of Lightning's own: the same weights as in a plain loop, also after a restart."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from gblend import BlendConfig, OnlineBlend
from tests.gblend.own_loop import HELDOUT, TRAINING, net

pytest.importorskip("lightning", reason="the callback needs lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and loggers

from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from gblend.lightning import OnlineBlendCallback  # noqa: E402

EPOCHS = 4


class Module(LightningModule):
    """As a user writes it; the same for the run and for probes."""

    def __init__(self, network: torch.nn.Module, loss_weights: dict[str, float]) -> None:
        super().__init__()
        self.network, self.loss_weights = network, loss_weights
        self.seen: list[dict[str, float]] = []

    def training_step(self, batch, index):
        sound, picture, labels = batch
        logits = self.network(sound, picture)
        if index == 0:
            self.seen.append(self.loss_weights)
        return sum(weight * F.cross_entropy(logits[head], labels) for head, weight in self.loss_weights.items())

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.1)


def trainer(epochs: int, *callbacks, **settings) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return Trainer(callbacks=list(callbacks), enable_checkpointing=saves, **{"max_epochs": epochs, **quiet, **settings})


def loader() -> DataLoader:
    return DataLoader(TRAINING, 16, shuffle=True)


def online() -> OnlineBlend:
    return OnlineBlend(
        epochs=EPOCHS,
        train=lambda branch, probe: trainer(probe.epochs).fit(Module(branch, probe.weights), loader()),
        train_batches=DataLoader(TRAINING, 16),
        valid_batches=DataLoader(HELDOUT, 16),
        blend=BlendConfig(first_epochs=3, next_epochs=2),
    )


def fit(blend: OnlineBlend, *callbacks, checkpoint=None, **settings) -> Module:
    torch.manual_seed(5)
    module = Module(net(), {})
    callback = OnlineBlendCallback(blend, network=module.network)
    trainer(EPOCHS, callback, *callbacks, **settings).fit(module, loader(), ckpt_path=checkpoint)
    return module


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A fit whose probes are fits as well, and its checkpoint after the second epoch."""
    folder, blend = tmp_path_factory.mktemp("checkpoints"), online()
    module = fit(blend, ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1))
    return module, blend, folder / "epoch=1.ckpt"


def test_every_epoch_has_the_weights_of_its_super_epoch_and_the_last_are_logged(finished):
    module, blend, _ = finished
    first, second = (found.loss_weights for found in blend.estimates)
    assert module.seen == [first, first, first, second]
    assert first != second
    logged = {name: value.item() for name, value in module.trainer.callback_metrics.items()}
    assert logged == pytest.approx({f"weight/{head}": weight for head, weight in second.items()})


def test_the_first_weights_are_those_that_a_plain_loop_gets(finished):
    _, blend, _ = finished
    assert online().weights_at(0, net()) == blend.estimates[0].loss_weights


def test_a_fit_that_goes_on_from_a_checkpoint_repeats_no_finished_estimate(finished):
    module, blend, checkpoint = finished
    again = online()
    assert fit(again, checkpoint=checkpoint).seen[0] == module.seen[2]
    assert again.estimates[0] == blend.estimates[0]
    assert len(again.estimates) == 2


def test_a_fit_that_goes_on_within_an_epoch_has_the_weights_of_that_epoch(tmp_path):
    steps = len(loader())
    fit(
        online(),
        ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=steps + 1, save_top_k=-1),
        max_steps=steps + 1,
    )
    (checkpoint,) = tmp_path.glob("*.ckpt")
    again, goes_on = online(), Module(net(), {})
    trainer(EPOCHS, OnlineBlendCallback(again, network=goes_on.network)).fit(goes_on, loader(), ckpt_path=checkpoint)
    assert goes_on.loss_weights
    assert len(again.estimates) == 2


def test_a_trainer_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"max_epochs of the trainer \(5\) and epochs of the blend \(4\)"):
        fit(online(), max_epochs=EPOCHS + 1)


def test_the_module_itself_is_not_a_network():
    with pytest.raises(ValueError, match="not the LightningModule itself"):
        OnlineBlendCallback(online(), network=Module(net(), {}))


def test_the_examples_of_the_library_page_run_as_they_are_printed():
    page = (Path(__file__).resolve().parents[2] / "docs" / "library.md").read_text()
    names: dict = {}
    for example in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(example, "library.md", "exec"), names)
    assert set(names["module"].loss_weights) == {"sound", "picture", "fused"}


def test_without_lightning_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "gblend.lightning")
    with pytest.raises(ImportError, match=re.escape('pip install "gblend[lightning]"')):
        importlib.import_module("gblend.lightning")
