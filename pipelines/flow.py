"""Optical flow between stored frames, at the stored resolution, in the 8 bits it is stored with.

A displacement is clipped to [-bound, bound] pixels of the stored frame and mapped linearly to 0..255, as TSN, I3D and
denseflow do; with a bound of 20 px one level is 0.157 px, and rest lands on 128. N frames give N - stride fields: the
last frames have no partner, none is made up, and nothing else is computed. OpenCV's algorithms see gray frames, RAFT
sees colour.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from schemas.flow import FlowSpec

Frames = Sequence[UInt8[np.ndarray, "height width 3"]]
"""In the order blue, green, red."""
FlowPx = Float32[np.ndarray, "height width 2"]


def quantise(flow_px: Float32[np.ndarray, "*shape"], *, bound_px: float) -> UInt8[np.ndarray, "*shape"]:
    """round(255 (v + B) / 2B), clipped to 0..255.

    >>> quantise(np.array([-99.0, -20.0, 0.0, 10.0, 20.0], np.float32), bound_px=20.0)
    array([  0,   0, 128, 191, 255], dtype=uint8)
    """
    # OpenCV scales, shifts, rounds half to even and clips in one pass over the array, in half of NumPy's time.
    levels = cv2.addWeighted(flow_px, 255 / (2 * bound_px), flow_px, 0.0, 127.5, dtype=cv2.CV_8U)
    return levels.reshape(flow_px.shape)


def dequantise(levels: UInt8[np.ndarray, "*shape"], *, bound_px: float) -> Float32[np.ndarray, "*shape"]:
    """The displacement a level stands for: 2B u / 255 - B.

    >>> dequantise(np.array([0, 128, 255], np.uint8), bound_px=20.0).round(3).tolist()
    [-20.0, 0.078..., 20.0]
    """
    return levels.astype(np.float32) * np.float32(2 * bound_px / 255) - np.float32(bound_px)


def flow_images(frames: Frames, spec: FlowSpec) -> list[UInt8[np.ndarray, "height2 width"]]:
    """One gray image a pair of frames, the horizontal component above the vertical one: 2 height x width."""
    if len(frames) <= spec.stride:
        return []
    flows_px = _raft(frames, spec) if spec.algorithm == "raft" else _opencv(frames, spec)
    return [np.concatenate(cv2.split(quantise(flow_px, bound_px=spec.bound_px))) for flow_px in flows_px]


def prepared(spec: FlowSpec) -> FlowSpec:
    """The spec as a job needs it, once before the first clip: its algorithm is there, its network's weights are pinned.

    Raises:
        ValueError: This OpenCV lacks the algorithm, or the weights cannot be had (`pipelines.raft.pin_weights`).
    """
    if spec.algorithm == "raft":
        from pipelines.raft import pin_weights

        return pin_weights(spec)
    _solver(spec.algorithm)
    return spec


def warm_up(spec: FlowSpec) -> None:
    """Load what the first clip would have to load, so that its time and memory are its own."""
    if spec.algorithm == "raft":
        from pipelines.raft import load_network

        load_network(spec)
    else:
        _solver(spec.algorithm)


def _opencv(frames: Frames, spec: FlowSpec) -> Iterator[FlowPx]:
    cv2.setNumThreads(1)
    solver = _solver(spec.algorithm)
    setters = {name: getattr(solver, "set" + name.title().replace("_", "")) for name in spec.parameters}
    # DIS asserts contiguous input; converting to gray makes it so.
    gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
    for first, second in zip(gray, gray[spec.stride :], strict=False):
        # Before every pair: DIS lowers its finest scale for a small frame and would keep it for the frames that follow.
        for name, value in spec.parameters.items():
            setters[name](value)
        yield solver.calc(first, second, None)


def _raft(frames: Frames, spec: FlowSpec) -> Iterator[FlowPx]:
    # torchvision takes a second to import, and most jobs need none of it.
    from pipelines.raft import raft_flow

    return raft_flow(frames, spec)


@lru_cache
def _solver(algorithm: str) -> Any:
    """One a process: making one takes as long as a pair of small frames."""
    makers: dict[str, Callable[[], Any]] = {
        "dis": cv2.DISOpticalFlow.create,
        "farneback": cv2.FarnebackOpticalFlow.create,
        "tvl1": _make_tvl1,
    }
    return makers[algorithm]()


def _make_tvl1() -> Any:
    if not hasattr(cv2, "optflow"):
        raise ValueError(
            "flow.algorithm tvl1 needs OpenCV's contrib modules, which this OpenCV lacks; uninstall the other opencv "
            "packages and reinstall opencv-contrib-python-headless"
        )
    return cv2.optflow.createOptFlow_DualTVL1()
