"""Everything a run can be told, as frozen dataclasses; ``jobs/recipes.py`` holds named combinations.

A run is decided by a `TrainConfig`, a method and a seed. Where it computes (`ComputeConfig`) is kept apart: it is not
part of the question. The parts of a `TrainConfig` have files of their own and are all to be had from here, because
whoever makes one needs them.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gblend.blend_config import BlendConfig
from gblend.input_config import InputConfig
from gblend.loss_config import LossConfig
from gblend.model_config import EncodersConfig, ModelConfig
from gblend.optim_config import OptimConfig
from gblend.require import require, require_choices
from schemas import MODALITIES
from schemas.tensor import is_own_name

__all__ = [
    "BlendConfig",
    "ComputeConfig",
    "EncodersConfig",
    "InputConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "TrainConfig",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One experiment, whatever its method and seed."""

    name: str
    """Name of the recipe."""
    modalities: tuple[str, ...] = ()
    """Modalities of the network: rgb, flow, logmel, or columns of your own; empty: all that the data set holds."""
    epochs: int = 12
    """Epochs of the main run, and of the full-length probes."""
    batch_size: int = 32
    """Clips per step, over all workers together, whatever their number."""
    micro_batches: int = 1
    """Pieces that each worker cuts its share of a batch into, one forward and backward pass each, before the one step:
    less memory for the same gradients, but for rounding, BatchNorm, which sees a piece at a time, and dropout."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward and backward passes of training; ``bf16`` is PyTorch's automatic mixed precision. Parameters,
    losses, optimiser, and all that is measured stay in fp32."""
    batch_norm: Literal["local", "sync"] = "local"
    """BatchNorm's statistics in training: of each worker's own clips, or of those of all workers together."""
    missing: Literal["drop", "zero"] = "drop"
    """Clips that lack a modality: left out and counted, or kept with zeros and a mask that the losses honour."""
    input: InputConfig = field(default_factory=InputConfig)
    """Windows."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Networks."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    blend: BlendConfig = field(default_factory=BlendConfig)
    """Weight estimation."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Training loss."""
    later: tuple[str, ...] = ()
    """Settings that change on the way in runs that blend, each "EPOCH NAME VALUE": "4 optim.learning_rate 0.02" holds
    from the end of epoch 4 on. Those of `gblend.later.CHANGEABLE`; the value in JSON."""
    predict_by: Literal["fused", "best-head", "mean", "stack"] = "fused"
    """What networks of several heads are judged by: the fused head, as in the paper, or another way of predicting with
    all heads. The others are scored beside it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batches"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in self.modalities:
            known = f"{', '.join(MODALITIES)}, or a name that `gblend column` takes"
            require(name in MODALITIES or is_own_name(name), "modalities", known, repr(name))
        require_choices(self, "")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values for ``config.json``."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeConfig:
    """Where a run computes."""

    workers: int = 2
    """Training processes; the batch is shared among them."""
    min_workers: int | None = None
    """Fewest with which training goes on when nodes are lost; it grows back to ``workers`` when there is room. None: it
    waits until there is room for all, and the result is the same to the bit as without the loss."""
    gpus_per_worker: float = 0.0
    """GPUs each of them holds; 0 trains on the CPU."""
    cpus_per_worker: float = 1.0
    """CPU cores each of them holds; also its threads."""
    ingest: Literal["torch", "ray"] = "torch"
    """Who reads and decodes clips: each worker on its own node (``torch``), or CPUs anywhere in the cluster that are
    not training's (``ray``: Ray Data), for nodes whose GPUs wait for their own CPUs. The batches are the same."""
    loader_processes: int = 0
    """Processes of each of them that read and decode clips while it trains, on its ``cpus_per_worker``; 0: it does so
    itself, between steps."""
    cache_dir: str | None = None
    """Where each node keeps copies of a data set that is not on a file system of its own: a directory on a local disk;
    none: gblend-shards-UID below the directory for temporary files. Data on a path, of a network file
    system as well, are read where they are."""
    cache_gib: float = 100.0
    """What all copies in it may take together; the least recently used go first, and none that is in use."""
    restarts: int = 2
    """How often the group is started again after a worker or node was lost; runs go on where they were last saved."""
    checkpoint_every: int = 200
    """Optimiser steps, of the run, its probes and the refitted head alike, after which the state of a run is saved: so
    many are lost at most when something stops. It is saved at the end of every epoch anyway; 0: only then."""
    compile: Literal["none", "inductor"] = "none"
    """``inductor``: encoders as `torch.compile` makes them, for the passes of training; the first takes minutes."""
    memory_format: Literal["channels-last", "contiguous"] = "channels-last"
    """Order of the numbers in memory, in our 2D and 3D trunks; the same numbers but for rounding."""
    log: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Where curves are logged besides ``history.jsonl``: files in the run directory, or the services that the
    environment names. Each needs its package on the workers."""

    def __post_init__(self) -> None:
        require(self.workers >= 1, "workers", "at least 1", self.workers)
        if self.min_workers is not None:
            require(1 <= self.min_workers <= self.workers, "min_workers", "from 1 to workers", self.min_workers)
        allowed = "0, 1, or with one worker a part of 1 (a worker computes on one GPU, NCCL with one worker on each)"
        alone = self.workers == 1 and 0.0 < self.gpus_per_worker < 1.0
        require(alone or self.gpus_per_worker in (0.0, 1.0), "gpus_per_worker", allowed, self.gpus_per_worker)
        here = self.cache_dir is None or "://" not in self.cache_dir
        require(here, "cache_dir", "a directory on a local disk", self.cache_dir)
        require(0.0 < self.cache_gib < math.inf, "cache_gib", "positive", self.cache_gib)
        require(0.0 < self.cpus_per_worker < math.inf, "cpus_per_worker", "positive", self.cpus_per_worker)
        for name in ("loader_processes", "restarts", "checkpoint_every"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require_choices(self, "")
        if self.ingest == "ray" and self.loader_processes > 0:
            raise ValueError(
                f"loader_processes ({self.loader_processes}) are of ingest torch; with ingest ray the cluster's free "
                "CPUs read clips: leave them out"
            )
