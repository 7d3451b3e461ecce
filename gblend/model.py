"""k encoders, k linear single-modality heads and one fused head, and the branches that probes train.

A *branch* is one head with everything it reads; with several tasks it is one head for each, which share all but the
last linear layer: one layer, whose outputs are those of all tasks side by side (`gblend.heads` names them). The
single-modality network *is* the branch of its head and the naive joint network *is* the branch of the fused head: a
probe, a baseline and a part of the blend are the same object.

With fusion ``mid`` an encoder is the first part of a trunk, whose maps the fused head reads; the single-modality head
reads what the rest of the same trunk, its *end*, makes of them. With every other fusion there are no ends.
"""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from gblend.batch_norm import waits_for_workers
from gblend.config import ModelConfig
from gblend.encoders import DIMS, make_encoder
from gblend.fusion import LATE, Concat, MidConcat, fused_head
from gblend.heads import FUSED, head_name, head_names
from gblend.resnet import Trunk
from gblend.resnet3d import last_stages

RECOMPILATIONS = 64
"""Of the same code, before PyTorch gives up compiling it: the trunks of a few modalities, each in training and frozen,
for one clip and for more."""


class BlendModel(nn.Module):
    """Any set of heads over any set of encoders.

    Inputs are dictionaries by modality, so a loader may bring more than the network reads.

    Args:
        encoders: Per modality, (batch, channels, ...) to (batch, ``output_dim``), an attribute of theirs.
        heads: Per branch, features to logits: modalities, and the fused one last.
        classes: Logits per task, by its key, that the outputs of each head are cut into; none: they are of one task.
        fusion: From the encoders' features to what the fused head reads; none: concatenation.
        ends: Per modality, what its head has between the encoder and itself, where there is anything.

    Raises:
        ValueError: An encoder without ``output_dim``, or a head without an encoder.
    """

    def __init__(
        self,
        *,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        classes: Mapping[str, int] | None = None,
        fusion: nn.Module | None = None,
        ends: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        for name, encoder in encoders.items():
            if not isinstance(getattr(encoder, "output_dim", None), int):
                raise ValueError(
                    f"the encoder of {name} needs an attribute output_dim, the length of its features (an int)"
                )
        unread = [name for name in heads if name != FUSED and name not in encoders]
        if unread:
            raise ValueError(
                f"head {unread[0]} has no encoder; heads are called as encoders are ({', '.join(encoders)}), or {FUSED}"
            )
        self.encoders = nn.ModuleDict(dict(encoders))
        self.ends = nn.ModuleDict(dict(ends or {}))
        if fusion is None and FUSED in heads:
            fusion = Concat([cast(int, encoder.output_dim) for encoder in encoders.values()])
        self.fusion = fusion
        self.heads = nn.ModuleDict(dict(heads))
        self.compiled = False
        outputs = len([*next(iter(heads.values())).parameters()][-1])  # of the last bias
        self.classes = dict(classes or {"": outputs})
        assert sum(self.classes.values()) == outputs

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities the network reads."""
        return tuple(self.encoders)

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches in the order of the heads of a task: the fused one last."""
        return tuple(self.heads)

    @property
    def head_names(self) -> tuple[str, ...]:
        """Heads in the order of every list of losses and weights: task by task, the fused head last in each."""
        return head_names(self.classes, self.branches)

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Logits of every head.

        Args:
            inputs: Per modality, float (batch, channels, ...).
            present: Per modality, bool (batch): false where the clip lacks it. Its features are zero, and no BatchNorm
                sees it; that of a fusion sees every clip that has anything. It decides what is computed, so it is best
                on the CPU: to look at it on a GPU is to wait for all that the GPU has still to do. None: no clip lacks
                anything.

        Returns:
            Per head, float (batch, classes of its task).
        """
        if present is None:
            present = {name: torch.ones(len(inputs[name]), dtype=torch.bool) for name in self.encoders}
        features = {
            name: _where(present[name], encoder, inputs[name], empty=_feature_shape(encoder, inputs[name]))
            for name, encoder in self.encoders.items()
        }
        said = {name: head(self._read_by(name, features, present)) for name, head in self.heads.items()}
        cut = {name: values.split(list(self.classes.values()), dim=1) for name, values in said.items()}
        return {head_name(key, name): cut[name][task] for task, key in enumerate(self.classes) for name in self.heads}

    def _read_by(self, head: str, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """What a head's first layer gets: (batch, dim)."""
        if head == FUSED:
            assert self.fusion is not None
            anything = torch.stack([present[name] for name in features]).any(dim=0)
            maps = list(features.values())
            return _where(anything, self.fusion, maps, empty=(cast(int, self.fusion.output_dim),))
        if head in self.ends:
            end = self.ends[head]
            return _where(present[head], end, features[head], empty=(cast(int, end.output_dim),))
        return features[head]

    def compile_parts(self) -> None:
        """Have PyTorch compile encoders, ends and fusion when they are first called; branches will be like it.

        What joins them stays Python: which clips are present decides how often each is called.
        """
        self.compiled = True
        # Trunks have their code in common, and each kind of them counts as a recompilation of it.
        torch._dynamo.config.recompile_limit = max(RECOMPILATIONS, torch._dynamo.config.recompile_limit)
        for part in (*self.encoders.values(), *self.ends.values(), *filter(None, [self.fusion])):
            part.compile()

    def branch(self, name: str) -> "BlendModel":
        """A deep copy of one branch: its heads and what they read; training it leaves this network alone."""
        if name not in self.heads:
            raise ValueError(f"there is no branch {name!r}; branches: {', '.join(self.branches)}")
        read = self.modalities if name == FUSED else (name,)
        branch = BlendModel(
            encoders={modality: copy.deepcopy(self.encoders[modality]) for modality in read},
            heads={name: copy.deepcopy(self.heads[name])},
            classes=self.classes,
            fusion=copy.deepcopy(self.fusion) if name == FUSED else None,
            ends={name: copy.deepcopy(self.ends[name])} if name in self.ends else {},
        )
        if self.compiled:
            branch.compile_parts()
        return branch


def eager(model: BlendModel) -> AbstractContextManager[object]:
    """Inside it, nothing compiled is used: what is measured does not depend on whether training is compiled."""
    return torch.compiler.set_stance("force_eager") if model.compiled else nullcontext()


def _where(present: Tensor, module: nn.Module, values: Any, *, empty: tuple[int, ...]) -> Tensor:
    """A module's answers for the clips that are present, and zeros for the others.

    ``values`` is a tensor or a list of tensors with the batch first; ``empty`` is the shape of an answer, read when the
    module is not called at all: for no clip, unless other workers may wait for this one inside it.
    """
    if bool(present.all()):
        return module(values)
    like = values[0] if isinstance(values, list) else values
    if not bool(present.any()) and not waits_for_workers(module):
        return like.new_zeros(len(present), *empty)
    which = present.nonzero()[:, 0].to(like.device, non_blocking=True)
    answers = module([x[which] for x in values] if isinstance(values, list) else values[which])
    return answers.new_zeros(len(present), *answers.shape[1:]).index_put((which,), answers)


def _feature_shape(encoder: nn.Module, values: Tensor) -> tuple[int, ...]:
    """Shape of one clip's features: a vector, or the map that a cut trunk leaves."""
    sizes = zip(values.shape[2:], cast(tuple[int, ...], getattr(encoder, "strides", ())), strict=False)
    return (cast(int, encoder.output_dim), *(-(-size // stride) for size, stride in sizes))


def make_model(
    modalities: tuple[str, ...],
    classes: int | Mapping[str, int],
    config: ModelConfig,
    *,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> BlendModel:
    """The joint network, its parameters decided by the seed (and by pre-trained weights) alone: phi^0 of the paper.

    Args:
        modalities: At least two names.
        classes: Logits of every head; with several tasks those of each, by its name.
        config: Which networks.
        seed: Decides every random parameter.
        shapes: Per modality that is not rgb, flow or logmel, the shape of a clip's input, the channels first.

    Raises:
        ValueError: Fewer than two modalities, one without an encoder, weights that do not fit, or a fusion that these
            encoders do not allow.
    """
    if len(set(modalities)) < 2:
        raise ValueError(f"blending needs at least two modalities, got {list(modalities)}")
    own = shapes or {}
    taken = [name for name in modalities if hasattr(nn.ModuleDict(), name)]
    if taken:
        raise ValueError(
            f"torch has its own use for the name {taken[0]!r}; give the modality another one (`gblend column --name`)"
        )
    per_task = {"": classes} if isinstance(classes, int) else dict(classes)
    outputs = sum(per_task.values())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every CUDA device as well
        encoders = {name: make_encoder(name, config, shape=own.get(name)) for name in modalities}
        _require_readers(encoders, config)
        heads: dict[str, nn.Module] = {name: nn.Linear(e.output_dim, outputs) for name, e in encoders.items()}
        if config.fusion == "mid":
            trunks = _trunks_to_cut(encoders)
            starts = {name: trunk.start(config.mid_stages) for name, trunk in trunks.items()}
            ends = {name: trunk.end(config.mid_stages) for name, trunk in trunks.items()}
            fusion: nn.Module = MidConcat(
                last_stages(config, inputs=sum(s.output_dim for s in starts.values()), first=config.mid_stages)
            )
        else:
            starts, ends = encoders, {}
            fusion = LATE[config.fusion]([e.output_dim for e in encoders.values()], config)
        heads[FUSED] = fused_head(cast(int, fusion.output_dim), outputs, config)
    return BlendModel(encoders=starts, heads=heads, classes=per_task, fusion=fusion, ends=ends)


def _require_readers(encoders: Mapping[str, nn.Module], config: ModelConfig) -> None:
    """Weights and networks that were asked for must be read by something."""
    idle = [name for name in config.encoders.places() if name not in encoders]
    if idle:
        raise ValueError(
            f"model.encoders has a network for {', '.join(idle)}, and the run's modalities are {', '.join(encoders)}; "
            "leave it out, or add the modality"
        )
    for dims, setting in ((3, "visual_weights"), (2, "audio_weights")):
        read = any(isinstance(encoder, Trunk) and DIMS[name] == dims for name, encoder in encoders.items())
        if getattr(config, setting) is not None and not read:
            raise ValueError(
                f"model.{setting} are for a {dims}D trunk, and none of {', '.join(encoders)} has one; leave them out"
            )


def _trunks_to_cut(encoders: Mapping[str, nn.Module]) -> dict[str, Trunk]:
    """All encoders, which must be trunks of ours; of two or more of these at least one is visual."""
    trunks = {name: encoder for name, encoder in encoders.items() if isinstance(encoder, Trunk)}
    others = [name for name in encoders if name not in trunks]
    if others:
        raise ValueError(
            f"fusion mid cuts trunks in two, and the encoder of {others[0]} is a network of your own; choose a fusion "
            f"of vectors: {', '.join(LATE)}"
        )
    return trunks
