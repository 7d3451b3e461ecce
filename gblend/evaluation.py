"""A finished run on a split, window by window: every head and every way of predicting with them.

Probabilities are averaged over the windows of a clip head by head, and the heads are then joined as was chosen on V,
from its central windows, when the run was trained. With the central window alone these are the run's own scores.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gblend import collective
from gblend.clip_choice import apply_missing_policy, require_resolution
from gblend.clips import ClipReader, read_dataset_info, read_index
from gblend.cost import SAY_EVERY_S, STEP_EVERY_S, duration
from gblend.feeder import Feeder, Feeding
from gblend.heads import head_name, key_of
from gblend.joint import Outputs, score_branches, score_ways
from gblend.labels import leave_out_unlabelled
from gblend.measure import MEASURE_BATCH, measure_outputs
from gblend.model import BlendModel
from gblend.outputs import HeadOutputs
from gblend.records import REFIT, HeadScore
from gblend.run_inputs import require_fit
from gblend.shard_files import ShardFiles
from gblend.trained import Trained, load_trained
from gblend.viewed import Seen, ViewedClips
from gblend.views import Views, mean_over_views
from schemas import FeatureSpec

PIECE_BYTES = 16 << 20
"""Of what heads say about all windows, held at once; of their means, everything is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a run comes to on a split."""

    run: str
    """Run directory."""
    method: str
    """Of the run."""
    seed: int
    """Of the run."""
    data: str
    """Data set directory."""
    split: str
    """Its split."""
    clips_per_video: int
    """Windows of every clip in time."""
    crops: str
    """Of every window: ``centre`` or ``three``."""
    clips: int
    """Clips scored."""
    excluded_clips: int
    """Clips left out by the missing-modality policy that the run was trained with."""
    unlabelled_clips: int
    """Clips left out because no task has a label for them."""
    predict_by: str
    """What the run is judged by: its only branch, or a way of predicting."""
    heads: dict[str, HeadScore]
    """Per head; with several tasks also per branch, of all tasks together."""
    ways: dict[str, HeadScore]
    """Per way of predicting with all heads, named alike; empty for a network of one branch."""

    @property
    def judged(self) -> HeadScore | None:
        """The score by ``predict_by``, with several tasks of all together."""
        return self.heads.get(self.predict_by, self.ways.get(self.predict_by))


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitData:
    """A split as a run sees it."""

    path: str
    """Data set directory."""
    split: str
    """Its split."""
    clips: ViewedClips
    """All windows."""
    excluded: int
    """Clips left out by the missing-modality policy."""
    unlabelled: int
    """Clips without a label for any task."""


def open_evaluation(
    run: str, data: str, split: str, views: Views, feeding: Feeding | None = None
) -> tuple[Trained, SplitData]:
    """A finished run, and the clips of a split as it sees them: chosen as for its own scores.

    Args:
        run: Run directory.
        data: Data set directory.
        split: Its split.
        views: Windows of every clip.
        feeding: How batches get here; None: read on the spot. It decides nothing in them.

    Raises:
        ValueError: The run is not finished or has no network, the data set does not fit it, the split has no clip that
            the run can say anything about.
    """
    info = read_dataset_info(data)
    trained = load_trained(run, info=info)
    inputs, config = trained.inputs, trained.config
    require_fit(info, inputs, data=data)
    require_resolution(info.features, config)
    files = ShardFiles(data, None if feeding is None else feeding.cache)
    index, unlabelled = leave_out_unlabelled(read_index(files, info, split, inputs.modalities), split)
    index, excluded = apply_missing_policy(index, config, split)
    clips = ViewedClips(
        index,
        ClipReader(files, info, inputs.modalities),
        Seen(views=views, input=config.input, spec=info.features, columns=inputs.columns),
        tasks=inputs.by_key,
        modalities=inputs.modalities,
    )
    if feeding is not None:
        clips.feed = partial(Feeder({split: clips}, feeding).batches, split)
    return trained, SplitData(path=data, split=split, clips=clips, excluded=excluded, unlabelled=unlabelled)


def evaluate(
    trained: Trained,
    data: SplitData,
    *,
    say: Callable[[str], object] = lambda _: None,
    step: Callable[[float, float, str], object] | None = None,
) -> Evaluation:
    """Score a run on a split; on several workers all of them together, each clip on one of them.

    Args:
        trained: The run.
        data: The split.
        say: Told once a minute how far it is and how long it will take, on worker 0.
        step: Told that in place of ``say``, once a second: how many clips of how many, and whose.
    """
    total = len(data.clips.index) * (1 if trained.refitted is None else 2)
    done, started_s = 0, time.monotonic()
    said_s = started_s

    def outputs_of(model: BlendModel) -> Outputs:
        def after(clips: int) -> None:
            nonlocal done, said_s
            done, now_s = done + clips, time.monotonic()
            if collective.rank() != 0 or now_s - said_s < (SAY_EVERY_S if step is None else STEP_EVERY_S):
                return
            if step is not None:
                said_s = now_s
                step(done, total, data.split)
            elif done < total:
                said_s, left_s = now_s, (now_s - started_s) / done * (total - done)
                say(f"evaluate: {done / total:.0%} of {data.split}, about {duration(left_s)} left")

        found = measure_views(model, data.clips, spec=trained.spec, after=after)
        return {key: {data.split: outputs} for key, outputs in found.items()}

    said = outputs_of(trained.model)
    ways = score_ways(said, trained.choices)[data.split] if trained.choices else {}
    if trained.refitted is not None:
        again = score_branches(outputs_of(trained.refitted))[data.split]
        ways |= {head_name(key_of(head), REFIT): score for head, score in again.items()}
    views = data.clips.views
    return Evaluation(
        run=trained.directory,
        method=trained.result.method,
        seed=trained.result.seed,
        data=data.path,
        split=data.split,
        clips_per_video=views.clips,
        crops=views.crops,
        clips=len(data.clips.index),
        excluded_clips=data.excluded,
        unlabelled_clips=data.unlabelled,
        predict_by=trained.result.primary,
        heads=score_branches(said)[data.split],
        ways=ways,
    )


def measure_views(
    model: BlendModel,
    clips: ViewedClips,
    *,
    spec: FeatureSpec,
    after: Callable[[int], object] = lambda _: None,
) -> dict[str, HeadOutputs]:
    """Per task key, what every head says on average over the windows of every clip (`gblend.measure.measure_outputs`).

    ``after`` is called with the number of clips of each piece, on every worker.
    """
    views, world = clips.views.count, collective.world_size()
    per_clip = 4 * views * sum(model.classes.values()) * len(model.branches)
    # Whole batches on every worker, so that of one window a clip the batches are those of a pass over all clips.
    group = MEASURE_BATCH * world
    size = group * max(1, PIECE_BYTES // (per_clip * group))
    pieces = []
    for first in range(0, len(clips.index), size):
        chosen = range(first, min(first + size, len(clips.index)))
        found = measure_outputs(model, clips, shared_order(chosen, views=views, world=world), spec=spec)
        pieces.append({key: _averaged(outputs, views) for key, outputs in found.items()})
        after(len(chosen))
    return {key: _joined([piece[key] for piece in pieces]) for key in pieces[0]}


def shared_order(clips: Sequence[int], *, views: int, world: int) -> list[int]:
    """Windows of these clips in an order of which every ``world``-th are whole clips, from wherever one begins: each
    worker's share. The clips left over after the last round are shared window by window.

    >>> shared_order([0, 1, 2], views=2, world=2)
    [0, 2, 1, 3, 4, 5]
    """
    return [
        clip * views + view
        for at in range(0, len(clips), world)
        for view in range(views)
        for clip in clips[at : at + world]
    ]


def _averaged(outputs: HeadOutputs, views: int) -> HeadOutputs:
    """One answer a clip from one a window, in the order of the clips."""
    order = np.argsort(outputs.positions).reshape(-1, views)  # (clips, views)
    means = [mean_over_views(said[order.T], several=outputs.several) for said in outputs.log_probs]
    first = order[:, 0]
    counted = outputs.counted[:, first]
    return HeadOutputs(
        heads=outputs.heads,
        log_probs=np.where(counted[:, :, None], np.stack(means), np.float32(0.0)),
        counted=counted,
        labels=outputs.labels[first],
        positions=outputs.positions[first] // views,
    )


def _joined(pieces: Sequence[HeadOutputs]) -> HeadOutputs:
    """The clips of all pieces, one after another."""
    return replace(
        pieces[0],
        log_probs=np.concatenate([piece.log_probs for piece in pieces], axis=1),
        counted=np.concatenate([piece.counted for piece in pieces], axis=1),
        labels=np.concatenate([piece.labels for piece in pieces]),
        positions=np.concatenate([piece.positions for piece in pieces]),
    )
