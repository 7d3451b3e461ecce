"""The encoder of a modality of the user's own, where it has no network of its own: by the axes of its tensors.

    (channels)          two fully connected layers
    (channels, time)    two 1D convolutions, the second every other step, then the mean over time

Each layer is followed by a norm and ReLU; the features are as many as the layers are wide. The norm is of each clip by
itself (GroupNorm of one group), not BatchNorm as in the trunks: where few clips have the tensor, a worker's share of a
batch may hold a single one, of which there is no variance. The layers have a bias, or the norm would make all positive
multiples of a tensor the same.
"""

from torch import Tensor, nn

WIDTH = 64
"""Of both layers: that of the narrow trunks' features."""


class TensorEncoder(nn.Module):
    """(batch, channels) or (batch, channels, time) to (batch, ``output_dim``).

    >>> import torch
    >>> TensorEncoder((5,))(torch.zeros(2, 5)).shape, TensorEncoder((3, 17))(torch.zeros(2, 3, 17)).shape
    (torch.Size([2, 64]), torch.Size([2, 64]))
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        assert len(shape) in (1, 2)
        self.output_dim = WIDTH
        if len(shape) == 1:
            layers: list[nn.Module] = [nn.Linear(shape[0], WIDTH), nn.Linear(WIDTH, WIDTH)]
        else:
            layers = [
                nn.Conv1d(shape[0], WIDTH, 5, padding=2),
                nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1),
            ]
        self.layers = nn.Sequential(*(part for layer in layers for part in (layer, nn.GroupNorm(1, WIDTH), nn.ReLU())))

    def forward(self, x: Tensor) -> Tensor:
        """Features of every clip."""
        features = self.layers(x)
        return features if features.ndim == 2 else features.mean(dim=2)
