"""Weights trained elsewhere, read into a trunk: a state dict with the names torchvision gives its residual networks.

Where torchvision has the twin (r3d_18, mc3_18, r2plus1d_18; resnet18 to resnet152 with the stem ``imagenet``) the trunk
then answers as the twin does. The authors' networks, converted to these names by others, fit as well; they were trained
with BatchNorm's eps at 1e-3, ours is 1e-5. Classifiers (``fc``) are left out by name; any other name or shape that does
not fit is an error. Nothing but tensors is unpickled.
"""

import io
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from gblend.resnet import Trunk
from gblend.storage import read_bytes

CLASSIFIER = "fc."
"""Names of the file that are left out begin so."""

_RENAMED = (
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"^layer(\d+)\.(\d+)\.downsample\.", r"layer\1.\2.shortcut."),
    # A video network has conv and norm in one sequence, "conv2.0", "conv2.1"; an image network has "conv2" and "bn2".
    (r"^layer(\d+)\.(\d+)\.conv(\d)\.(?=\d)", r"layer\1.\2.convs.\3."),
    (r"^layer(\d+)\.(\d+)\.conv(\d)\.", r"layer\1.\2.convs.\3.0."),
    (r"^layer(\d+)\.(\d+)\.bn(\d)\.", r"layer\1.\2.convs.\3.1."),
)

_SHOWN = 6
"""Names of each kind that an error lists."""


def load_pretrained(trunk: Trunk, place: str) -> None:
    """Fill a trunk from a file.

    A first convolution for another number of input channels is adapted: its weights are averaged over the file's
    channels, repeated, and scaled by old / new, so that an input whose channels are all equal gets the same answer.

    Args:
        trunk: Filled in place.
        place: A path, an fsspec URL, or http(s), which is downloaded once a machine into torch.hub's cache.

    Raises:
        ValueError: The file is no state dict, or names or shapes do not fit; all that do not are named.
    """
    found = {_trunk_name(name): value for name, value in _read(place).items() if not name.startswith(CLASSIFIER)}
    wanted = trunk.state_dict()
    first = "stem.0.weight"
    if first in found and first in wanted:
        found[first] = _adapt_channels(found[first], wanted[first].shape[1])
    # Files older than this counter lack it; it matters only to a BatchNorm without momentum, and ours has one.
    missing = [n for n in wanted if n not in found and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in found if n not in wanted]
    misshapen = [
        f"{n} {tuple(found[n].shape)} for {tuple(wanted[n].shape)}"
        for n in wanted
        if n in found and found[n].shape != wanted[n].shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(wrong.values()):
        listed = "; ".join(f"{what}: {_some(names)}" for what, names in wrong.items() if names)
        raise ValueError(
            f"the weights in {place} are of another network ({listed}); model.visual_block, r2plus1d_middle, "
            "visual_ or audio_ depth, layers and width, and audio_stem must be those it was trained with"
        )
    trunk.load_state_dict({**wanted, **found})


def _trunk_name(name: str) -> str:
    """Torchvision's name of a parameter to ours.

    >>> _trunk_name("layer2.0.conv1.0.3.weight"), _trunk_name("layer4.1.bn2.bias"), _trunk_name("bn1.weight")
    ('stages.1.0.convs.0.0.3.weight', 'stages.3.1.convs.1.1.bias', 'stem.1.weight')
    """
    for pattern, ours in _RENAMED:
        name = re.sub(pattern, ours, name)
    name = re.sub(r"(?<=\.convs\.)\d+", lambda found: str(int(found[0]) - 1), name)
    return re.sub(r"^layer(\d+)", lambda found: f"stages.{int(found[1]) - 1}", name)


def _adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """(outputs, old channels, ...) to (outputs, new channels, ...); each output's sum over channels stays."""
    if weight.shape[1] == channels:
        return weight
    return (weight.sum(dim=1, keepdim=True) / channels).expand(-1, channels, *weight.shape[2:])


def _read(place: str) -> Mapping[str, Tensor]:
    try:
        if re.match(r"https?://", place):
            state = torch.hub.load_state_dict_from_url(place, map_location="cpu", weights_only=True, progress=False)
        else:
            state = torch.load(io.BytesIO(read_bytes(place)), map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{place} cannot be read as weights ({type(error).__name__}: {first})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{place} holds no state dict: it must map names to tensors, got {type(state).__name__}")
    return state


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
