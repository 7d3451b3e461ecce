"""Optical flow as a spec: the algorithm, every number it runs with, and what a stored level means.

The algorithms' own parameters are constants here, not OpenCV's defaults of the day: they are set on the solver, and
written into the metadata for whoever reads the file. An option of another algorithm is an error, never ignored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from schemas.checks import require_number, require_one_of, require_whole

Algorithm = Literal["dis", "farneback", "tvl1", "raft"]
Preset = Literal["ultrafast", "fast", "medium"]

_DIS = {
    "patch_size": 8,
    "use_mean_normalization": True,
    "use_spatial_propagation": True,
    "variational_refinement_alpha": 20.0,
    "variational_refinement_gamma": 10.0,
    "variational_refinement_delta": 5.0,
}

DIS: dict[Preset, dict[str, Any]] = {
    "ultrafast": {
        "finest_scale": 2,
        "patch_stride": 4,
        "gradient_descent_iterations": 12,
        "variational_refinement_iterations": 0,
        **_DIS,
    },
    "fast": {
        "finest_scale": 2,
        "patch_stride": 4,
        "gradient_descent_iterations": 16,
        "variational_refinement_iterations": 5,
        **_DIS,
    },
    "medium": {
        "finest_scale": 1,
        "patch_stride": 3,
        "gradient_descent_iterations": 25,
        "variational_refinement_iterations": 5,
        **_DIS,
    },
}
"""OpenCV's presets, written out. The coarsest scale follows from the frame's size, which may also lower the finest."""

FARNEBACK: dict[str, Any] = {
    "num_levels": 5,
    "pyr_scale": 0.5,
    "fast_pyramids": False,
    "win_size": 13,
    "num_iters": 10,
    "poly_n": 5,
    "poly_sigma": 1.1,
    "flags": 0,
}
"""OpenCV's defaults."""

TVL1: dict[str, Any] = {
    "tau": 0.25,
    "lambda": 0.15,
    "theta": 0.3,
    "scales_number": 5,
    "scale_step": 0.8,
    "warpings_number": 5,
    "epsilon": 0.01,
    "inner_iterations": 30,
    "outer_iterations": 10,
    "median_filtering": 5,
    "gamma": 0.0,
    "use_initial_flow": False,
}
"""OpenCV's defaults (of its contrib modules)."""

RAFT: dict[str, Any] = {"updates": 12, "multiple_px": 8, "least_side_px": 128}
"""torchvision's number of flow updates, and the sizes its network takes: frames are padded to such a size by repeating
their border, and the flow is cropped back."""

MEANING = {
    "unit": "pixels of the stored frame (height x width of the row)",
    "level": "displacement = level * 2 * bound_px / 255 - bound_px",
    "image": "horizontal component (right is positive) above the vertical one (down is positive)",
}
"""What a reader must know about a stored level."""

_OPTION_OF: dict[str, Algorithm] = {
    "preset": "dis",
    "raft_model": "raft",
    "raft_weights": "raft",
    "raft_weights_sha256": "raft",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSpec:
    """Optical flow between stored frames, quantised to 8 bits: N frames give N - stride fields."""

    algorithm: Algorithm = "dis"
    """``dis``: OpenCV's dense inverse search; ``farneback`` and ``tvl1``: OpenCV's too, with its default parameters;
    ``raft``: torchvision's network, on a GPU where there is one."""
    preset: Preset = "fast"
    """Speed setting of ``dis``."""
    raft_model: Literal["small", "large"] = "small"
    """Network of ``raft``."""
    raft_weights: str | None = field(default=None, compare=False)
    """Weights of ``raft``: path or fsspec URL of a torchvision state dict, readable from every node; none:
    torchvision's own, downloaded when first needed. Where they lie decides no value, and no dataset says it."""
    raft_weights_sha256: str | None = None
    """Checksum of the weights. None: of whatever is found there when the job starts; else they must have this one."""
    stride: int = 1
    """Distance in stored frames between the two frames of a pair."""
    bound_px: float = 20.0
    """Displacements are clipped to [-bound_px, bound_px], in pixels of the stored frame, before quantising."""
    codec: Literal["jpeg", "raw"] = "jpeg"
    """One gray image a pair, the horizontal component above the vertical one: 2 height x width."""
    jpeg_quality: int = 95
    """1 to 100, for the codec ``jpeg``."""

    def __post_init__(self) -> None:
        require_one_of("flow.algorithm", self.algorithm, get_args(Algorithm))
        for part in fields(self):
            owner = _OPTION_OF.get(part.name, self.algorithm)
            value = getattr(self, part.name)
            if owner != self.algorithm and value != part.default:
                raise ValueError(
                    f"flow.{part.name} is an option of the algorithm {owner}, got {value!r} with {self.algorithm}; "
                    f"leave it out or set flow.algorithm to {owner}"
                )
        require_one_of("flow.preset", self.preset, get_args(Preset))
        require_one_of("flow.raft_model", self.raft_model, ("small", "large"))
        checksum = self.raft_weights_sha256
        if checksum is not None and re.fullmatch("[0-9a-f]{64}", checksum) is None:
            raise ValueError(f"flow.raft_weights_sha256 must be 64 lower-case hexadecimal digits, got {checksum!r}")
        require_whole("flow.stride", self.stride, least=1, most=1000)
        require_number("flow.bound_px", self.bound_px, most=8192.0)
        require_one_of("flow.codec", self.codec, ("jpeg", "raw"))
        require_whole("flow.jpeg_quality", self.jpeg_quality, least=1, most=100)

    @property
    def parameters(self) -> dict[str, Any]:
        """The algorithm's own numbers, under OpenCV's names for ``dis``, ``farneback`` and ``tvl1``."""
        return {"dis": DIS[self.preset], "farneback": FARNEBACK, "tvl1": TVL1, "raft": RAFT}[self.algorithm]

    @property
    def wants_gpu(self) -> bool:
        """Whether a GPU makes it faster: OpenCV's algorithms run on the CPU alone."""
        return self.algorithm == "raft"

    def to_json(self) -> dict[str, Any]:
        """The fields that matter to the algorithm.

        >>> FlowSpec(algorithm="tvl1").to_json()
        {'algorithm': 'tvl1', 'stride': 1, 'bound_px': 20.0, 'codec': 'jpeg', 'jpeg_quality': 95}
        """
        used = [part.name for part in fields(self) if _OPTION_OF.get(part.name, self.algorithm) == self.algorithm]
        return {name: getattr(self, name) for name in used}

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "FlowSpec":
        """A spec whose description this is; where the weights lie it does not say.

        >>> FlowSpec.from_description(FlowSpec(stride=2).describe()).stride
        2
        """
        chosen = {part.name for part in fields(cls)}
        return cls(**{name: value for name, value in described.items() if name in chosen})

    def describe(self) -> dict[str, Any]:
        """Everything the stored values depend on, and what a reader must know about them."""
        if self.algorithm == "raft" and self.raft_weights_sha256 is None:
            raise ValueError(
                "flow.raft_weights_sha256 is not known yet, and the flow depends on it; "
                "take the spec through pipelines.flow.prepared first"
            )
        described = {**self.to_json(), "parameters": self.parameters, **MEANING}
        described.pop("raft_weights", None)
        return described
