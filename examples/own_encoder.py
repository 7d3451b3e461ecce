"""Encoders of your own in a `BlendModel`, whose branches are smaller than the whole: a probe trains only what it reads.

    python examples/own_encoder.py

Made-up sound waves and sequences of key points of four classes. Takes seconds on one CPU core.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gblend import BlendConfig, BlendModel, OnlineBlend, Probe

CLASSES, EPOCHS, DIM = 4, 12, 32


class WaveEncoder(nn.Module):
    """(batch, 1, 400) to (batch, output_dim): all that a `BlendModel` asks of an encoder."""

    output_dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 16, 25, stride=4),
            nn.ReLU(),
            nn.Conv1d(16, DIM, 9, stride=4),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
        )

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Averaged over time."""
        return self.layers(wave).flatten(1)


class MotionEncoder(nn.Module):
    """(batch, 10, 34), steps of 17 key points, to (batch, output_dim)."""

    output_dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.GRU(34, DIM, batch_first=True)

    def forward(self, motion: torch.Tensor) -> torch.Tensor:
        """The state after the last step."""
        return self.steps(motion)[1][0]


def make_model() -> BlendModel:
    """A linear head for each modality, named like it, and the fused head, which reads all features end to end."""
    return BlendModel(
        encoders={"wave": WaveEncoder(), "motion": MotionEncoder()},
        heads={
            "wave": nn.Linear(DIM, CLASSES),
            "motion": nn.Linear(DIM, CLASSES),
            "fused": nn.Sequential(nn.Linear(2 * DIM, DIM), nn.ReLU(), nn.Linear(DIM, CLASSES)),
        },
    )


def make_samples(count: int, seed: int) -> TensorDataset:
    """Wave (count, 1, 400), motion (count, 10, 34), label (count)."""
    patterns = 0.15 * torch.randn(CLASSES, 10, 34, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=noise)
    time, phase = torch.linspace(0, 1, 400), 6.3 * torch.rand(count, 1, generator=noise)
    wave = torch.sin(6.3 * (20 + 10 * labels[:, None]) * time + phase) + 2 * torch.randn(count, 400, generator=noise)
    motion = patterns[labels] + torch.randn(count, 10, 34, generator=noise)
    return TensorDataset(wave[:, None], motion, labels)


def batches(samples: TensorDataset, *, shuffle: bool = False) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """A `BlendModel` reads a dict by modality, so that a branch takes from it what it needs."""
    loader = DataLoader(samples, 32, shuffle=shuffle)
    return [({"wave": wave, "motion": motion}, labels) for wave, motion, labels in loader]


TRAINING, HELDOUT, TEST = make_samples(240, 1), make_samples(160, 2), make_samples(1000, 3)


def train(network: nn.Module, weights: dict[str, float], optimizer: torch.optim.Optimizer) -> None:
    """One epoch of the weighted sum of the heads' losses."""
    network.train()
    for inputs, labels in batches(TRAINING, shuffle=True):
        logits = network(inputs)
        losses = [weight * F.cross_entropy(logits[head], labels) for head, weight in weights.items() if weight > 0]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()


def train_probe(branch: nn.Module, probe: Probe) -> None:
    """The same for one head, whose branch has neither the other head nor, but for the fused head, the other encoder."""
    optimizer = torch.optim.Adam(branch.parameters(), lr=3e-3)
    for _ in range(probe.epochs):
        train(branch, probe.weights, optimizer)


@torch.no_grad()
def accuracy(network: nn.Module) -> dict[str, float]:
    network.eval()
    right: dict[str, int] = {}
    for inputs, labels in batches(TEST):
        for head, logits in network(inputs).items():
            right[head] = right.get(head, 0) + int((logits.argmax(dim=1) == labels).sum())
    return {head: count / len(TEST) for head, count in right.items()}


def run(fixed: dict[str, float] | None) -> dict[str, float]:
    """Train with weights that are given, or with those that are found on the way."""
    torch.manual_seed(0)
    network = make_model()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    blend = OnlineBlend(
        epochs=EPOCHS,
        train=train_probe,
        train_batches=batches(TRAINING),
        valid_batches=batches(HELDOUT),
        blend=BlendConfig(first_epochs=4, next_epochs=4),
    )
    for epoch in range(EPOCHS):
        train(network, fixed or blend.weights_at(epoch, network), optimizer)
    for found in blend.estimates:
        shares = "  ".join(f"{head} {weight:.2f}" for head, weight in found.loss_weights.items())
        print(f"from epoch {found.epoch:2}: weights {shares}")
    return accuracy(network)


def main() -> None:
    results = {
        "uni:wave": run({"wave": 1.0}),
        "naive": run({"fused": 1.0}),
        "equal": run({"wave": 1 / 3, "motion": 1 / 3, "fused": 1 / 3}),
        "online": run(None),
    }
    print(f"\ntest accuracy (chance {1 / CLASSES:.2f}, also of heads that a method does not train)")
    for method, found in results.items():
        print(f"{method:11}" + "  ".join(f"{head} {value:.3f}" for head, value in found.items()))


if __name__ == "__main__":
    main()
