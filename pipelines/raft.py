"""RAFT, torchvision's network for optical flow: where its weights come from, and flow in batches of pairs.

The flow depends on what the weights are, not on where they lie: the job pins their checksum once
(`pipelines.flow.prepared`), every process checks it. Only tensors are read from a weights file. The network runs on a
GPU where the process has one: the same device and library give the same bytes, the CPU gives others within rounding.
"""

import dataclasses
import hashlib
import io
import os
import pickle
from collections.abc import Iterator, Sequence
from functools import lru_cache

import fsspec
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch.nn import Module
from torchvision.models import optical_flow

from schemas.flow import RAFT, FlowSpec

PIXELS_AT_ONCE = 2**19
"""Of the first frames of a batch of pairs: 23 pairs of 128 x 170. A fixed number, for a batch's size can touch bits."""

MODELS = {
    "small": (optical_flow.raft_small, optical_flow.Raft_Small_Weights.C_T_V2),
    "large": (optical_flow.raft_large, optical_flow.Raft_Large_Weights.C_T_SKHT_V2),
}
"""Network, and torchvision's own weights for it."""


def pin_weights(spec: FlowSpec) -> FlowSpec:
    """The spec of algorithm ``raft`` with the checksum of its weights.

    Raises:
        ValueError: The weights cannot be had, are not a state dict of the network, or have another checksum.
    """
    place = spec.raft_weights
    if place is not None and "://" not in place:
        place = os.path.abspath(place)
    data = _read_weights(spec.raft_model, place)
    _load(data, model=spec.raft_model, place=place, sha256=spec.raft_weights_sha256)
    return dataclasses.replace(spec, raft_weights=place, raft_weights_sha256=hashlib.sha256(data).hexdigest())


def load_network(spec: FlowSpec) -> Module:
    """The network, in eval mode and on this process's device; read once a process."""
    return _network(spec.raft_model, spec.raft_weights, spec.raft_weights_sha256)


def raft_flow(
    frames: Sequence[UInt8[np.ndarray, "height width 3"]], spec: FlowSpec
) -> Iterator[Float32[np.ndarray, "height width 2"]]:
    """Displacement in pixels from each frame (blue, green, red) to the one ``spec.stride`` later."""
    network = load_network(spec)
    height, width = frames[0].shape[:2]
    top, bottom = _padding(height)
    left, right = _padding(width)
    batch = max(1, PIXELS_AT_ONCE // ((height + top + bottom) * (width + left + right)))
    pairs = len(frames) - spec.stride
    for at in range(0, pairs, batch):
        end = min(at + batch, pairs)
        first, second = (
            torch.nn.functional.pad(_normalised(some), (left, right, top, bottom), mode="replicate")
            for some in (frames[at:end], frames[at + spec.stride : end + spec.stride])
        )
        flow_px = _run(network, first, second)[:, :, top : top + height, left : left + width]
        yield from flow_px.permute(0, 2, 3, 1).contiguous().numpy()


def _normalised(frames: Sequence[UInt8[np.ndarray, "height width 3"]]) -> torch.Tensor:
    """-1 to 1, (time, 3, height, width), red first."""
    return torch.from_numpy(np.stack(frames)).flip(3).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def _padding(side_px: int) -> tuple[int, int]:
    """How much to add on either side.

    >>> _padding(128), _padding(170), _padding(64)
    ((0, 0), (3, 3), (32, 32))
    """
    multiple = RAFT["multiple_px"]
    missing = max(RAFT["least_side_px"], -(-side_px // multiple) * multiple) - side_px
    return missing // 2, missing - missing // 2


def _run(network: Module, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    device = next(network.parameters()).device
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)  # As OpenCV's: a shard has one core, and more could change the bits.
    try:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            return network(first.to(device), second.to(device), num_flow_updates=RAFT["updates"])[-1].cpu()
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=2)
def _network(model: str, place: str | None, sha256: str | None) -> Module:
    network = _load(_read_weights(model, place), model=model, place=place, sha256=sha256)
    return network.to("cuda" if torch.cuda.is_available() else "cpu")


def _load(data: bytes, *, model: str, place: str | None, sha256: str | None) -> Module:
    """The network in eval mode, on the CPU."""
    where = f"flow.raft_weights {place}" if place is not None else "the downloaded weights"
    found = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, found):
        raise ValueError(
            f"{where} has the checksum {found}, flow.raft_weights_sha256 says {sha256}; "
            "give the weights of that checksum, or leave it out to take these"
        )
    network = MODELS[model][0]()
    try:
        network.load_state_dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where} is not a state dict of torchvision's raft_{model} ({_first_line(error)}); "
            "save one with torch.save(network.state_dict(), path), or set flow.raft_model"
        ) from None
    return network.eval()


def _read_weights(model: str, place: str | None) -> bytes:
    if place is None:
        return _read_own_weights(model)
    try:
        with fsspec.open(place, "rb") as file:
            return file.read()  # pyright: ignore[reportAttributeAccessIssue]
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"flow.raft_weights {place} cannot be read ({type(error).__name__}: {_first_line(error)}); "
            "give a path or URL that every node can read"
        ) from None


def _read_own_weights(model: str) -> bytes:
    """The weights that torchvision offers, from its cache; downloaded into it when they are not there."""
    url = MODELS[model][1].url
    cached = os.path.join(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    try:
        if not os.path.exists(cached):
            os.makedirs(os.path.dirname(cached), exist_ok=True)
            prefix = url.rsplit("-", 1)[1].removesuffix(".pth")
            torch.hub.download_url_to_file(url, cached, hash_prefix=prefix, progress=False)
        with open(cached, "rb") as file:
            return file.read()
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the weights of torchvision's raft_{model} cannot be downloaded from {url} ({_first_line(error)}); "
            "download them where there is a network and give their path as flow.raft_weights"
        ) from None


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
