"""Ways of predicting with the heads that one training, or several, left behind; all at no extra training.

    fused       the fused head, as in the paper
    best-head   the head that is best on V
    mean        the mean of the heads' probabilities
    stack       softmax of sum_h a_h log p_h, with a >= 0, sum(a) = 1, of lowest cross-entropy on V; of several labels
                sigmoid of sum_h a_h logit_h, of lowest binary cross-entropy (`gblend.several`)

Of one network's heads these are its predictions; of several networks' heads, joined, their ensemble. A clip is
predicted by the heads it has: missing ones drop out and the rest share their weight, ``best-head`` falls back to the
next best. A head that diverged counts as missing; a clip without any head gets equal probabilities, and no score.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gblend.heads import FUSED, head_name
from gblend.outputs import HeadOutputs
from gblend.records import HeadScore, PredictionScores
from gblend.scores import metrics_of
from gblend.several import fit_stack_of_logits, logits_of, mean_of_logits, stack_of_logits
from gblend.simplex import Local, Minimum, minimise_on_simplex

HeadLogProbs = Float[np.ndarray, "heads clips classes"]
LogProbs = Float[np.ndarray, "clips classes"]
Truth = Int[np.ndarray, " clips"] | Bool[np.ndarray, "clips classes"]
Usable = Bool[np.ndarray, "heads clips"]

CHUNK_BYTES = 32 * 2**20
"""Of one double-precision copy of all heads' log-probabilities held at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A convex combination of heads, fitted."""

    weights: Float[np.ndarray, " heads"]
    """Non-negative, sum 1."""
    loss_nats: float
    """Mean cross-entropy on the clips it was fitted on; NaN when there were none."""
    gap_nats: float
    """No other weights are better there by more than this."""
    clips: int
    """Clips that every head can answer for; without any, the weights are equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What is chosen on V."""

    ranking: list[int]
    """Heads from best to worst."""
    stack: Stack
    """Their convex combination."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One way's answers."""

    log_probs: LogProbs
    """As in `HeadOutputs`, of one head."""
    answered: Bool[np.ndarray, " clips"]
    """Clips it is scored on."""


def score_predictions(valid: HeadOutputs, splits: Mapping[str, HeadOutputs]) -> PredictionScores:
    """All ways of predicting, scored on every split.

    Args:
        valid: The heads on V, where ``best-head`` and ``stack`` are chosen.
        splits: The same heads on the clips to score.
    """
    chosen, heads = choose(valid), valid.heads
    return PredictionScores(
        scores={
            split: {way: score(said.log_probs, outputs.labels, said.answered) for way, said in ways(outputs, chosen)}
            for split, outputs in splits.items()
        },
        ranking=tuple(heads[at] for at in chosen.ranking),
        stack_weights=dict(zip(heads, chosen.stack.weights.tolist(), strict=True)),
        stack_clips=chosen.stack.clips,
    )


def choose(valid: HeadOutputs) -> Choice:
    """Everything that is chosen on V."""
    return Choice(ranking=rank_heads(valid), stack=fit_stack(valid.log_probs, valid.usable(), valid.labels))


def choice_of(found: PredictionScores, heads: tuple[str, ...], task: str = "") -> Choice:
    """What a finished run chose on V, for heads in this order; of one task's key where there are several."""
    names = [head_name(task, head) for head in heads]
    weights = np.array([found.stack_weights[name] for name in names])
    return Choice(
        ranking=[names.index(name) for name in found.ranking if name in names],
        stack=Stack(weights=weights, loss_nats=np.nan, gap_nats=np.nan, clips=found.stack_clips),
    )


def ways(outputs: HeadOutputs, chosen: Choice) -> Iterator[tuple[str, Said]]:
    """Every way of predicting, one after another: its name and what it says."""
    log_probs, usable = outputs.log_probs, outputs.usable()
    if FUSED in outputs.heads:
        yield FUSED, said_by(outputs, FUSED)
    answered = np.asarray(usable.any(axis=0))
    yield "best-head", Said(log_probs=first_of(log_probs, usable, chosen.ranking), answered=answered)
    yield "mean", mean_of(outputs)
    if outputs.several:
        joined = log_sigmoid(stack_of_logits(logits_of(log_probs), usable, chosen.stack.weights))
    else:
        joined = stack(log_probs, usable, chosen.stack.weights)
    yield "stack", Said(log_probs=joined, answered=answered)


def mean_of(outputs: HeadOutputs) -> Said:
    """The mean of the heads' probabilities."""
    log_probs, usable = outputs.log_probs, outputs.usable()
    joined = log_sigmoid(mean_of_logits(logits_of(log_probs), usable)) if outputs.several else mean(log_probs, usable)
    return Said(log_probs=joined, answered=np.asarray(usable.any(axis=0)))


def said_by(outputs: HeadOutputs, head: str) -> Said:
    """What one head says about the clips that count for it."""
    at = outputs.heads.index(head)
    return Said(log_probs=outputs.log_probs[at], answered=np.asarray(outputs.counted[at]))


def score_heads(outputs: HeadOutputs) -> dict[str, HeadScore]:
    """Every head by itself, over the clips that count for it: what `gblend.measure.measure` finds for these clips."""
    return {
        head: score(said.log_probs, outputs.labels, said.answered)
        for head in outputs.heads
        for said in [said_by(outputs, head)]
    }


def score(log_probs: LogProbs, labels: Truth, counted: Bool[np.ndarray, " clips"]) -> HeadScore:
    """Mean loss and the metrics of the task's kind over the counted clips; NaN when there are none.

    >>> score(np.log([[0.5, 0.5], [0.75, 0.25]]), np.array([0, 1]), np.array([True, True])).metrics
    {'accuracy': 0.5}
    """
    said, truth = log_probs[counted], labels[counted]
    loss = clip_losses(said, truth)
    return HeadScore(
        loss_nats=float(loss.mean()) if loss.size else float("nan"), metrics=metrics_of(said, truth), count=loss.size
    )


def clip_losses(log_probs: LogProbs, labels: Truth) -> Float[np.ndarray, " clips"]:
    """Cross-entropy of every clip in nats; of several labels binary cross-entropy, the mean over classes.

    >>> clip_losses(np.log([[0.5, 0.25]]), np.array([[True, False]])).round(4)  # (ln 2 + ln 4/3) / 2
    array([0.4904])
    """
    if labels.ndim == 1:
        return -log_probs[np.arange(len(labels)), labels].astype(np.float64)
    logits = logits_of(log_probs).astype(np.float64)
    return -log_sigmoid(np.where(labels, logits, -logits)).mean(axis=1)


def rank_heads(valid: HeadOutputs) -> list[int]:
    """Heads from best to worst by their first metric, equal ones by loss; on clips that every head has, if any.

    >>> outputs = HeadOutputs(
    ...     heads=("a", "b"), log_probs=np.log([[[0.6, 0.4]], [[0.3, 0.7]]]), counted=np.ones((2, 1), dtype=bool),
    ...     labels=np.array([1]), positions=np.array([0]))
    >>> rank_heads(outputs)
    [1, 0]
    """
    usable = valid.usable()
    shared = usable.all(axis=0)
    scores = [
        score(valid.log_probs[at], valid.labels, np.asarray(shared if shared.any() else usable[at]))
        for at in range(len(valid.heads))
    ]

    def badness(head: int) -> tuple[bool, float, float]:
        found = scores[head]
        if found.count == 0 or not np.isfinite(found.loss_nats):
            return True, 0.0, 0.0
        return False, -float(np.nan_to_num(found.value)), found.loss_nats

    return sorted(range(len(valid.heads)), key=badness)


def first_of(log_probs: HeadLogProbs, usable: Usable, ranking: list[int]) -> LogProbs:
    """Each clip by the first head in ``ranking`` that it has.

    >>> said, usable = np.log([[[0.6, 0.4]], [[0.3, 0.7]]]), np.array([[True], [False]])
    >>> np.exp(first_of(said, usable, [1, 0])).round(3).tolist()
    [[0.6, 0.4]]
    """
    chosen = np.array(ranking)[usable[ranking].argmax(axis=0)]
    said = log_probs[chosen, np.arange(log_probs.shape[1])].astype(np.float64)
    return np.where(usable.any(axis=0, keepdims=True).T, said, -np.log(log_probs.shape[2]))


def mean(log_probs: HeadLogProbs, usable: Usable) -> LogProbs:
    """Logarithm of the mean probability over the heads a clip has.

    >>> np.exp(mean(np.log([[[0.6, 0.4]], [[0.2, 0.8]]]), np.ones((2, 1), dtype=bool))).round(3).tolist()
    [[0.4, 0.6]]
    """
    total = np.zeros(log_probs.shape[1:])
    for at in range(len(log_probs)):
        has = np.flatnonzero(usable[at])
        total[has] += np.exp(log_probs[at, has], dtype=np.float64)
    count = usable.sum(axis=0)
    with np.errstate(divide="ignore"):  # every head may give a class no probability at all
        return np.where(
            count[:, None] > 0, np.log(total) - np.log(np.maximum(count, 1))[:, None], -np.log(log_probs.shape[2])
        )


def stack(log_probs: HeadLogProbs, usable: Usable, weights: Float[np.ndarray, " heads"]) -> LogProbs:
    """Log-softmax of the weighted sum of log-probabilities, the weights shared among the heads a clip has.

    A clip whose heads all have weight 0 gets them with equal weights.

    >>> said = np.log([[[0.8, 0.2]], [[0.5, 0.5]]])
    >>> np.exp(stack(said, np.ones((2, 1), dtype=bool), np.array([0.5, 0.5]))).round(3).tolist()  # sqrt(.4) : sqrt(.1)
    [[0.667, 0.333]]
    """
    share = weights[:, None] * usable
    share = np.where(share.sum(axis=0) > 0, share, usable)
    share = share / np.maximum(share.sum(axis=0), np.finfo(np.float64).tiny)
    total = np.zeros(log_probs.shape[1:])
    for at in range(len(log_probs)):
        has = np.flatnonzero(usable[at])
        total[has] += share[at, has][:, None] * log_probs[at, has]
    return _log_softmax(total)


def fit_stack(log_probs: HeadLogProbs, usable: Usable, labels: Truth) -> Stack:
    """The weights of `stack` that minimise mean cross-entropy: a convex problem, solved to a proven gap. Of several
    labels those of `gblend.several.stack_of_logits`.

    Heads that can answer for no clip have weight 0. Of the others, only clips that all of them can answer for are used;
    where there is none, hardly a clip has two heads to weigh, and the weights are equal.

    >>> certain, guess = [[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]
    >>> fit_stack(np.log([certain, guess]), np.ones((2, 2), dtype=bool), np.array([0, 1])).weights.round(4).tolist()
    [1.0, 0.0]
    """
    able = np.flatnonzero(usable.any(axis=1))
    weights = np.zeros(len(log_probs))
    if able.size == 0:
        return Stack(weights=weights + 1 / max(1, weights.size), loss_nats=np.nan, gap_nats=np.nan, clips=0)
    shared = np.flatnonzero(usable[able].all(axis=0))
    if shared.size == 0:
        weights[able] = 1 / able.size
        return Stack(weights=weights, loss_nats=np.nan, gap_nats=np.nan, clips=0)
    if labels.ndim == 2:
        found: Minimum = fit_stack_of_logits(logits_of(log_probs[np.ix_(able, shared)]), labels[shared])
    else:
        found = minimise_on_simplex(
            lambda point: _cross_entropy(point, log_probs, able, shared, labels[shared]), able.size
        )
    weights[able] = found.point
    return Stack(weights=weights, loss_nats=found.value, gap_nats=found.gap, clips=int(shared.size))


def _cross_entropy(
    weights: np.ndarray, log_probs: HeadLogProbs, heads: np.ndarray, clips: np.ndarray, labels: np.ndarray
) -> Local:
    """Mean of -log softmax(sum_h w_h l_h)[label] and its derivatives: means of E[l] - l[label] and of Cov(l)."""
    size, classes = heads.size, log_probs.shape[2]
    value, gradient, hessian = 0.0, np.zeros(size), np.zeros((size, size))
    rows = max(1, CHUNK_BYTES // (8 * size * classes))
    for start in range(0, clips.size, rows):
        part = slice(start, start + rows)
        said = log_probs[np.ix_(heads, clips[part])].astype(np.float64)  # (heads, clips, classes)
        joined = _log_softmax(np.tensordot(weights, said, axes=1))
        likely = np.exp(joined)
        of_label = np.arange(joined.shape[0]), labels[part]
        expected = (said * likely).sum(axis=2)  # (heads, clips)
        value -= joined[of_label].sum()
        gradient += (expected - said[:, *of_label]).sum(axis=1)
        away = (said - expected[:, :, None]) * np.sqrt(likely)
        away = away.reshape(size, -1)
        hessian += away @ away.T
    return Local(value=float(value) / clips.size, gradient=gradient / clips.size, hessian=hessian / clips.size)


def _log_softmax(values: Float[np.ndarray, "clips classes"]) -> Float[np.ndarray, "clips classes"]:
    values = values - values.max(axis=1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def log_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities from logits, as `gblend.outputs` keeps them.

    >>> log_sigmoid(np.array([0.0])).round(4)
    array([-0.6931])
    """
    return -np.logaddexp(0.0, -logits)
