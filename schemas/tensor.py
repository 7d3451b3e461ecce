"""A modality of the user's own: a tensor for every clip, of one shape, in a file of its own beside the others.

    <name>.arrow     one record batch a clip: its id, whether it has the tensor, the values; the spec in the metadata

The last axis holds the channels: (channels), or (time, channels), or more axes before them.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from schemas.column import Column, fields_of
from schemas.features import FORMAT_VERSION, MODALITIES, SPEC_KEY

TAKEN = (*MODALITIES, "audio", "clips", "ledger", "fused", "mean", "stack", "refit")
"""Names of files, heads, presence flags and ways of predicting, which a modality must not share."""

TORCH_ATTRIBUTES = (
    "T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double "
    "dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu items "
    "keys load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters pop "
    "register_backward_hook register_buffer register_forward_hook register_forward_pre_hook "
    "register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook "
    "register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook "
    "register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory state_dict to to_empty "
    "train training type update values xpu zero_grad"
)
"""Attributes of torch's modules, by whose names a network cannot hold an encoder."""

RESERVED = frozenset(TORCH_ATTRIBUTES.split())


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """What is stored of every clip that has the tensor, and how networks see it."""

    shape: tuple[int, ...]
    """Of one clip's tensor, the channels last."""
    mean: tuple[float, ...]
    """Per channel, over the training clips: networks see each channel less its mean, over its sd."""
    sd: tuple[float, ...]
    """Per channel, over the training clips; 1 where they are all the same."""
    sha256: str
    """Checksum of the values of all clips: another one is another column."""

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"a tensor column's shape must be one positive number or more, got {list(self.shape)}")
        for name, values in (("mean", self.mean), ("sd", self.sd)):
            if len(values) != self.channels or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} must be {self.channels} finite numbers, one a channel")

    @property
    def channels(self) -> int:
        """Length of the last axis."""
        return self.shape[-1]

    @property
    def size(self) -> int:
        """Numbers in one clip's tensor.

        >>> TensorSpec(shape=(4, 3), mean=(0.0,) * 3, sd=(1.0,) * 3, sha256="").size
        12
        """
        return math.prod(self.shape)

    def describe(self) -> dict[str, Any]:
        """What decides the stored values and how networks see them, as plain JSON values."""
        return {"format_version": FORMAT_VERSION, "column": self.to_json()}

    def fingerprint(self) -> str:
        """SHA-256 of `describe`: equal fingerprints mean interchangeable files."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by `from_json`."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TensorSpec":
        """The inverse of `to_json`.

        >>> spec = TensorSpec(shape=(2,), mean=(0.5, 0.0), sd=(1.0, 2.0), sha256="ab")
        >>> TensorSpec.from_json(spec.to_json()) == spec
        True
        """
        parts = {name: tuple(values[name]) for name in ("shape", "mean", "sd")}
        return cls(sha256=values["sha256"], **parts)


def tensor_columns(name: str) -> tuple[Column, ...]:
    """Columns of ``<name>.arrow``."""
    return (
        Column(name="clip_id", type=pa.string(), nullable=False, meaning="name of the clip"),
        Column(name=f"has_{name}", type=pa.bool_(), nullable=False, meaning="the clip has the tensor"),
        Column(name="values", type=pa.list_(pa.float32()), meaning="row major, of the shape in the schema metadata"),
    )


def tensor_schema(name: str, spec: TensorSpec) -> pa.Schema:
    """``<name>.arrow``, its spec in the metadata."""
    said = json.dumps(spec.describe(), sort_keys=True).encode()
    return pa.schema(list(fields_of(tensor_columns(name))), metadata={SPEC_KEY: said})


def spec_of(schema: pa.Schema, *, what: str) -> TensorSpec:
    """The spec in the metadata of ``<name>.arrow``; ``what`` names the file in the error."""
    try:
        return TensorSpec.from_json(json.loads((schema.metadata or {})[SPEC_KEY])["column"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{what} does not say what its tensors are ({error!r}); add it again with `gblend column`"
        ) from None


def is_own_name(name: str) -> bool:
    """Whether a modality of the user's own can have this name, which becomes part of the names of files and parameters.

    >>> is_own_name("pose"), is_own_name("rgb"), is_own_name("1st"), is_own_name("values")
    (True, False, False, False)
    """
    return name.isascii() and name.isidentifier() and not name.startswith("_") and name not in {*TAKEN, *RESERVED}


def require_own_name(name: str, *, what: str) -> None:
    """Raise ``ValueError`` unless a modality of the user's own can have this name; ``what`` names the setting."""
    if name in RESERVED:
        raise ValueError(f"{what} must not be {name!r}, which torch has its own use for; choose another, as my_{name}")
    if not is_own_name(name):
        raise ValueError(
            f"{what} must begin with a letter, hold letters, digits and underscores and be none of {', '.join(TAKEN)}; "
            f"got {name!r}"
        )
