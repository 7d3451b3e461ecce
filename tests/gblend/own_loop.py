"""A network, samples and a training loop as a user has them: nothing of ours."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """Two inputs, three heads, BatchNorm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.sound, self.picture = nn.Sequential(nn.Linear(5, 8), nn.ReLU()), nn.Sequential(nn.Linear(3, 8), nn.ReLU())
        self.norm, self.dropout = nn.BatchNorm1d(16), nn.Dropout(0.3)
        self.heads = nn.ModuleDict({"sound": nn.Linear(8, 3), "picture": nn.Linear(8, 3), "fused": nn.Linear(16, 3)})

    def forward(self, sound, picture):
        heard, seen = self.sound(sound), self.picture(picture)
        both = self.dropout(self.norm(torch.cat([heard, seen], dim=1)))
        features = {"sound": heard, "picture": seen, "fused": both}
        return {name: head(features[name]) for name, head in self.heads.items()}


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


def samples(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    sound, picture = (torch.randn(count, size, generator=generator) + labels[:, None] for size in (5, 3))
    return TensorDataset(sound, picture, labels)


TRAINING, HELDOUT = samples(48, 1), samples(30, 2)


def fit(network: nn.Module, weights: dict[str, float], epochs: int, loader: DataLoader, optimizer=None) -> None:
    """A training loop as people write it: random order, dropout, and noise from NumPy."""
    optimizer = optimizer or torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9)
    network.train()
    for _ in range(epochs):
        for sound, picture, labels in loader:
            logits = network(sound + 0.01 * np.random.rand(), picture)  # noqa: NPY002
            loss = sum(weight * F.cross_entropy(logits[head], labels) for head, weight in weights.items())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
