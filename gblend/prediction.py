"""What a finished run says about one clip: every head, every way of predicting with them, and why some say nothing.

The windows and the mean over them are those of `gblend.evaluation`. A single-modality head answers when the clip has
its modality. The fused head follows the policy that the run was trained with: under ``drop`` it never saw a clip that
lacks anything and does not answer for one; under ``zero`` it answers for what is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Float

from gblend.clips import StoredClip, clip_of
from gblend.heads import FUSED, branch_of, head_name, key_of, of_each_task
from gblend.inputs import to_inputs
from gblend.measure import MEASURE_BATCH
from gblend.model import BlendModel
from gblend.outputs import HeadOutputs
from gblend.predictions import Said, said_by, ways
from gblend.records import REFIT
from gblend.trained import Trained
from gblend.viewed import Seen, ViewedClip
from gblend.views import Views, mean_over_views
from schemas import MODALITIES, Modality

LACKS = {"rgb": "no picture", "flow": "no two frames to tell motion from", "logmel": "no sound"}
"""What a clip is said to have in place of a modality."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Answers about one clip, by head and way of predicting; with several tasks ``<task>/<way>``."""

    probabilities: dict[str, Float[np.ndarray, " classes"]]
    """Softmax, or of several labels one sigmoid a class."""
    missing: dict[str, str]
    """Why the others do not answer."""


def modalities_of(trained: Trained) -> tuple[Modality, ...]:
    """What has to be computed of a video.

    Raises:
        ValueError: The network reads a modality that no video has.
    """
    columns = [name for name in trained.model.modalities if name in trained.inputs.columns]
    if columns:
        raise ValueError(
            f"{trained.directory} reads {columns[0]!r}, a column of your own, which a video file does not hold; score "
            "the run on a data set that has it with `gblend evaluate`, or use a run of other modalities"
        )
    return tuple(name for name in MODALITIES if name in trained.model.modalities)


def clip_from(rows: Mapping[str, pa.RecordBatch], trained: Trained, *, frames: int) -> StoredClip:
    """A clip from the rows that preprocessing makes of it.

    Args:
        rows: Of `modalities_of`, a row each, as in the modality's file.
        trained: The run.
        frames: Of the clip, at the stored rate. A window lies where all modalities of the run have frames, whether this
            network reads them or not: of those it does not read, the number of images is all there is.
    """
    clip = clip_of(rows, {})
    unread: dict[str, list] = {}
    for name, count in (("rgb", frames), ("flow", frames - trained.inputs.features.flow.stride)):
        if name in trained.inputs.modalities and name not in rows and count > 0:
            unread[name] = [b""] * count
    return replace(clip, **unread)


def predict(trained: Trained, clip: StoredClip, views: Views) -> Prediction:
    """Ask the network about a clip."""
    seen = Seen(views=views, input=trained.config.input, spec=trained.inputs.features, columns=trained.inputs.columns)
    viewed = ViewedClip.of(clip, seen, trained.model.modalities)
    said: dict[str, Said] = {}
    for key, outputs in _outputs(trained.model, viewed, trained).items():
        said |= {head_name(key, head): said_by(outputs, head) for head in outputs.heads}
        if key in trained.choices:
            said |= {head_name(key, way): answer for way, answer in ways(outputs, trained.choices[key])}
    if trained.refitted is not None:
        for key, outputs in _outputs(trained.refitted, viewed, trained).items():
            said[head_name(key, REFIT)] = said_by(outputs, FUSED)
    answered = {name: np.exp(one.log_probs[0]) for name, one in said.items() if one.answered[0]}
    found = {name: values for name, values in answered.items() if np.isfinite(values).all()}
    lacks = [LACKS[name] for name in trained.model.modalities if not clip.has(name)]
    missing = {}
    for name in said:
        branch = branch_of(name)
        if name in answered and name not in found:
            missing[name] = "its answer is not a number: the network diverged"
        elif name not in found and branch in LACKS:
            missing[name] = LACKS[branch]
        elif name not in found:
            policy = " (trained with --missing drop, on clips that lack nothing)" if branch in (FUSED, REFIT) else ""
            missing[name] = ", ".join(lacks) + policy
    return Prediction(probabilities=found, missing=missing)


def _outputs(model: BlendModel, viewed: ViewedClip, trained: Trained) -> dict[str, HeadOutputs]:
    """Per task key, what every head says on average over the windows; of one clip, whose label is not known."""
    device = next(model.parameters()).device
    has = {name: viewed.clip.has(name) for name in model.modalities}
    fused = any(has.values()) if trained.config.missing == "zero" else all(has.values())
    pieces: dict[str, list[np.ndarray]] = {head: [] for head in model.head_names}
    tasks = trained.inputs.by_key
    for first in range(0, len(viewed.windows), MEASURE_BATCH):
        cut = [viewed.cut(view, model.modalities) for view in range(len(viewed.windows))[first : first + MEASURE_BATCH]]
        arrays = {name: torch.from_numpy(np.stack([one[name] for one in cut])).to(device) for name in model.modalities}
        present = {name: torch.full((len(cut),), there, device=device) for name, there in has.items()}
        with torch.no_grad():
            logits = model(to_inputs(arrays, trained.spec), present)
        for head, values in logits.items():
            log_probs = F.logsigmoid if tasks[key_of(head)].kind == "multi" else partial(F.log_softmax, dim=1)
            pieces[head].append(log_probs(values.float()).cpu().numpy())
    outputs = {}
    for key, heads in of_each_task(model.head_names).items():
        several = tasks[key].kind == "multi"
        means = [mean_over_views(np.concatenate(pieces[head])[:, None], several=several) for head in heads]
        counted = np.array([[fused if branch == FUSED else has[branch]] for branch in model.branches])
        shape = (1, len(tasks[key].classes)) if several else (1,)
        outputs[key] = HeadOutputs(
            heads=model.branches,
            log_probs=np.where(counted[:, :, None], np.stack(means), np.float32(0.0)),
            counted=counted,
            labels=np.zeros(shape, dtype=bool if several else np.int64),
            positions=np.zeros(1, dtype=np.int64),
        )
    return outputs
