"""The encoder of a modality: a trunk of our family, pre-trained or not, or a network of the user's own.

An encoder maps (batch, channels, ...) to (batch, ``output_dim``). For the modalities we know, the number of axes
decides the trunk: 3D for pictures over time, 2D for a spectrogram. Any other name is a tensor of the user's own, whose
axes decide (`gblend.tensor_encoder`).
"""

from collections.abc import Mapping

from torch import Tensor, nn

from gblend.config import ModelConfig
from gblend.own import import_callable
from gblend.pretrained import load_pretrained
from gblend.resnet import Trunk
from gblend.resnet2d import resnet2d
from gblend.resnet3d import resnet3d
from gblend.tensor_encoder import TensorEncoder

IN_CHANNELS: Mapping[str, int] = {"rgb": 3, "flow": 2, "logmel": 1}
"""Channels of each known modality's input."""

DIMS: Mapping[str, int] = {"rgb": 3, "flow": 3, "logmel": 2}
"""Axes after the channels: time, height, width; or time, mel."""


class OwnEncoder(nn.Module):
    """A user's network, whose answers are checked where they enter."""

    def __init__(self, network: nn.Module, *, output_dim: int, name: str) -> None:
        super().__init__()
        self.network = network
        self.output_dim = output_dim
        self._name = name

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, ...) to (batch, output_dim)."""
        # A copy: all networks that train side by side share the batch, and a user's may change its input in place.
        features = self.network(x.clone())
        expected = (len(x), self.output_dim)
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        if shape != expected:
            raise ValueError(f"{self._name} must map {tuple(x.shape)} to {expected}, (batch, output_dim); got {shape}")
        return features


def make_encoder(
    modality: str, config: ModelConfig, *, shape: tuple[int, ...] | None = None
) -> Trunk | OwnEncoder | TensorEncoder:
    """The encoder of one modality.

    Args:
        modality: Its name.
        config: Which networks.
        shape: Of a clip's input, the channels first, of a modality that is not in `IN_CHANNELS`.

    Raises:
        ValueError: A modality we do not know has no shape, or one that we have no network for, or a user's network
            cannot be made.
    """
    place = config.encoders.places().get(modality)
    if modality in IN_CHANNELS:
        channels = IN_CHANNELS[modality]
    elif shape is None:
        raise ValueError(
            f"unknown modality {modality!r}; allowed: {', '.join(DIMS)}, and tensors of your own: give their shape"
        )
    else:
        channels = shape[0]
    if place is not None:
        return _own_encoder(f"model.encoders.{modality} ({place})", place, channels)
    if modality not in DIMS:
        assert shape is not None
        if len(shape) > 2:
            raise ValueError(
                f"tensors of {modality} have {len(shape)} axes (channels first: {shape}), our networks for tensors are "
                f"for 1 or 2; give one of your own by model.encoders.other {modality} module:callable"
            )
        return TensorEncoder(shape)
    if DIMS[modality] == 2:
        trunk, weights = resnet2d(config, in_channels=channels), config.audio_weights
    else:
        trunk, weights = resnet3d(config, in_channels=channels), config.visual_weights
    if weights is not None:
        load_pretrained(trunk, weights)
    return trunk


def _own_encoder(name: str, place: str, in_channels: int) -> OwnEncoder:
    make = import_callable(name, place, purpose="the number of channels")
    network = make(in_channels)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} must return a torch.nn.Module, returned {type(network).__name__}")
    output_dim = getattr(network, "output_dim", None)
    if not isinstance(output_dim, int) or output_dim < 1:
        raise ValueError(f"{name}: the network needs an attribute output_dim, the length of its features (an int)")
    return OwnEncoder(network, output_dim=output_dim, name=name)
