"""Modalities we do not know, with our encoders for tensors; some samples lack one of them.

    python examples/own_modality.py

Made-up heart rates over time and questionnaires of four classes; a third of the samples has no heart rate. With so few
samples the weights are shrunk to equal ones by as much as is chance. Takes seconds on one CPU core.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gblend import BlendConfig, ModelConfig, OnlineBlend, Probe, make_model

CLASSES, EPOCHS = 4, 12
SHAPES = {"heart": (1, 60), "answers": (200,)}  # channels first: one curve of 60 steps, and 200 numbers


def make_samples(count: int, seed: int) -> TensorDataset:
    """Heart (count, 1, 60), answers (count, 200), whether there is a heart rate (count), label (count)."""
    patterns = torch.Generator().manual_seed(0)
    curves, means = (
        strength * torch.randn(CLASSES, *SHAPES[name], generator=patterns)
        for name, strength in (("heart", 0.5), ("answers", 0.12))
    )
    noise = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=noise)
    heart = curves[labels] + torch.randn(count, *SHAPES["heart"], generator=noise)
    answers = means[labels] + torch.randn(count, *SHAPES["answers"], generator=noise)
    return TensorDataset(heart, answers, torch.rand(count, generator=noise) > 1 / 3, labels)


def forward(network: nn.Module, batch: list[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Logits per head, and labels per head: -1 where a head has nothing to go by, so that nobody counts the sample."""
    heart, answers, measured, labels = batch
    present = {"heart": measured, "answers": torch.ones_like(measured)}
    logits = network({"heart": heart, "answers": answers}, present)
    return logits, {"heart": labels.masked_fill(~measured, -1), "answers": labels, "fused": labels}


TRAINING, HELDOUT, TEST = make_samples(240, 1), make_samples(160, 2), make_samples(1000, 3)


def train(network: nn.Module, weights: dict[str, float], optimizer: torch.optim.Optimizer) -> None:
    """One epoch of the weighted sum of the heads' losses."""
    network.train()
    for batch in DataLoader(TRAINING, 32, shuffle=True):
        logits, labels = forward(network, batch)
        losses = [
            weight * F.cross_entropy(logits[head], labels[head], ignore_index=-1)
            for head, weight in weights.items()
            if weight > 0
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()


def train_probe(branch: nn.Module, probe: Probe) -> None:
    """The same for one head of a copy."""
    optimizer = torch.optim.Adam(branch.parameters(), lr=3e-3)
    for _ in range(probe.epochs):
        train(branch, probe.weights, optimizer)


@torch.no_grad()
def accuracy(network: nn.Module) -> dict[str, float]:
    """Of each head, over the samples that it can answer for."""
    network.eval()
    logits, labels = forward(network, list(TEST.tensors))
    return {
        head: (values.argmax(dim=1) == labels[head])[labels[head] >= 0].float().mean().item()
        for head, values in logits.items()
    }


def run(fixed: dict[str, float] | None) -> dict[str, float]:
    """Train with weights that are given, or with those that are found on the way."""
    network = make_model(tuple(SHAPES), CLASSES, ModelConfig(), seed=0, shapes=SHAPES)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    torch.manual_seed(0)
    blend = OnlineBlend(
        epochs=EPOCHS,
        train=train_probe,
        train_batches=DataLoader(TRAINING, 80),
        valid_batches=DataLoader(HELDOUT, 80),
        blend=BlendConfig(first_epochs=4, next_epochs=4, overfitting_floor="standard-error", shrinkage="noise"),
        forward=forward,
    )
    for epoch in range(EPOCHS):
        train(network, fixed or blend.weights_at(epoch, network), optimizer)
    for found in blend.estimates:
        shares = "  ".join(
            f"{head} {weight:.2f} ({clips} held out)"
            for (head, weight), clips in zip(found.loss_weights.items(), found.valid_clips, strict=True)
        )
        print(f"from epoch {found.epoch:2}: weights {shares}")
    return accuracy(network)


def main() -> None:
    results = {
        "uni:answers": run({"answers": 1.0}),
        "naive": run({"fused": 1.0}),
        "equal": run({"heart": 1 / 3, "answers": 1 / 3, "fused": 1 / 3}),
        "online": run(None),
    }
    print(f"\ntest accuracy (chance {1 / CLASSES:.2f}, also of heads that a method does not train)")
    for method, found in results.items():
        print(f"{method:13}" + "  ".join(f"{head} {value:.3f}" for head, value in found.items()))


if __name__ == "__main__":
    main()
