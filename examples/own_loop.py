"""Online Gradient-Blending in a plain PyTorch loop: a network of your own, which answers with a dict of logits.

    python examples/own_loop.py

Two modalities made up so that joint training hurts: audio generalises, video is nearly all noise, which can be learned
by heart. On data of your own "equal" is the control that is hard to beat. Takes seconds on one CPU core.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gblend import BlendConfig, OnlineBlend, Probe

CLASSES, AUDIO, VIDEO, EPOCHS = 4, 64, 1024, 12
HEADS = ("audio", "video", "fused")


class Net(nn.Module):
    """Two encoders, a head for each, and one for both together."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = nn.Sequential(nn.Linear(AUDIO, 64), nn.ReLU())
        self.video = nn.Sequential(nn.Linear(VIDEO, 64), nn.ReLU())
        self.heads = nn.ModuleDict(
            {
                "audio": nn.Linear(64, CLASSES),
                "video": nn.Linear(64, CLASSES),
                "fused": nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, CLASSES)),
            }
        )

    def forward(self, audio: torch.Tensor, video: torch.Tensor) -> dict[str, torch.Tensor]:
        """Per head, (batch, classes)."""
        a, b = self.audio(audio), self.video(video)
        read = {"audio": a, "video": b, "fused": torch.cat([a, b], dim=1)}
        return {name: head(read[name]) for name, head in self.heads.items()}


def make_samples(count: int, seed: int) -> TensorDataset:
    """Audio (count, 64), video (count, 1024), label (count)."""
    patterns = torch.Generator().manual_seed(0)
    means = {
        size: strength * torch.randn(CLASSES, size, generator=patterns)
        for size, strength in ((AUDIO, 0.25), (VIDEO, 0.05))
    }
    noise = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=noise)
    audio, video = (mean[labels] + torch.randn(count, size, generator=noise) for size, mean in means.items())
    return TensorDataset(audio, video, labels)


TRAINING, HELDOUT, TEST = make_samples(240, 1), make_samples(160, 2), make_samples(2000, 3)


def make_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)


def train_epoch(network: nn.Module, weights: dict[str, float], optimizer: torch.optim.Optimizer) -> None:
    """Your loop: one epoch of the weighted sum of the heads' losses."""
    network.train()
    for audio, video, labels in DataLoader(TRAINING, 32, shuffle=True):
        logits = network(audio, video)
        losses = [weight * F.cross_entropy(logits[head], labels) for head, weight in weights.items() if weight > 0]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()


def train_probe(branch: nn.Module, probe: Probe) -> None:
    """The same loop for a copy of the network and one head, with a fresh optimiser."""
    optimizer = make_optimizer(branch)
    for _ in range(probe.epochs):
        train_epoch(branch, probe.weights, optimizer)


@torch.no_grad()
def accuracy(network: nn.Module) -> dict[str, float]:
    audio, video, labels = TEST.tensors
    logits = network.eval()(audio, video)
    return {head: (values.argmax(dim=1) == labels).float().mean().item() for head, values in logits.items()}


def run(fixed: dict[str, float] | None) -> dict[str, float]:
    """Train with weights that are given, or with those that are found on the way."""
    torch.manual_seed(0)
    network = Net()
    optimizer = make_optimizer(network)
    blend = OnlineBlend(
        epochs=EPOCHS,
        train=train_probe,
        train_batches=DataLoader(TRAINING, 80),
        valid_batches=DataLoader(HELDOUT, 80),
        blend=BlendConfig(first_epochs=4, next_epochs=4),
    )
    for epoch in range(EPOCHS):
        weights = fixed or blend.weights_at(epoch, network)
        train_epoch(network, weights, optimizer)
    for found in blend.estimates:
        ogr = "  ".join(f"{head} {ratio:.2f}" for head, ratio in zip(found.heads, found.ogr, strict=True))
        shares = "  ".join(f"{head} {weight:.2f}" for head, weight in found.loss_weights.items())
        print(f"from epoch {found.epoch:2}: OGR {ogr}   weights {shares}")
    return accuracy(network)


def main() -> None:
    results = {
        "uni:audio": run({"audio": 1.0}),
        "naive": run({"fused": 1.0}),
        "equal": run(dict.fromkeys(HEADS, 1 / 3)),
        "online": run(None),
    }
    print(f"\ntest accuracy (chance {1 / CLASSES:.2f}, also of heads that a method does not train)")
    for method, found in results.items():
        print(f"{method:11}" + "  ".join(f"{head} {value:.3f}" for head, value in found.items()))


if __name__ == "__main__":
    main()
