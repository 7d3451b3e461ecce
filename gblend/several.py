"""Joining heads of a task with several labels a clip: the mean of their probabilities, and the stack.

Everything in logits, l = log p - log(1 - p), which say all of p and of 1 - p at once. A class is a Bernoulli variable,
and log-probabilities of its two outcomes, combined and normalised, are what the logits are combined to:

    sigmoid(sum_h a_h l_h)  is  exp(sum_h a_h log p_h), beside the same of 1 - p_h, of sum 1

so that the stack is that of `gblend.predictions`, class by class, with one weight a head.
"""

import numpy as np
from jaxtyping import Bool, Float

from gblend.simplex import Local, Minimum, minimise_on_simplex

HeadLogits = Float[np.ndarray, "heads clips classes"]
Logits = Float[np.ndarray, "clips classes"]
Truth = Bool[np.ndarray, "clips classes"]
Usable = Bool[np.ndarray, "heads clips"]

CHUNK_BYTES = 32 * 2**20
"""Of one double-precision copy of all heads' logits held at once."""


def logits_of(log_probs: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Logits from log-sigmoids, as `gblend.outputs.HeadOutputs` holds them; of the same precision.

    >>> logits_of(np.log(np.array([0.5, 0.8]))).round(4)  # ln 1, ln 4
    array([0.    , 1.3863])
    """
    # Where p is 1 to the last digit, the largest logit that can be told.
    held = np.minimum(log_probs, -np.finfo(log_probs.dtype).tiny)
    with np.errstate(divide="ignore"):
        # log(1 - p) keeps the digits of the smaller of p and 1 - p. A p of 0 has the logit -inf.
        return held - np.where(held > -np.log(2.0), np.log(-np.expm1(held)), np.log1p(-np.exp(held)))


def mean_of_logits(logits: HeadLogits, usable: Usable) -> Logits:
    """Logit of the mean probability over the heads a clip has; 0, one half, where it has none.

    >>> probabilities = np.array([[[0.9]], [[0.1]]])
    >>> mean_of_logits(np.log(probabilities / (1 - probabilities)), np.ones((2, 1), dtype=bool)).round(6).tolist()
    [[0.0]]
    """
    yes, no = np.full(logits.shape[1:], -np.inf), np.full(logits.shape[1:], -np.inf)
    for said, has in zip(logits, usable, strict=True):
        found = said[has].astype(np.float64)
        yes[has] = np.logaddexp(yes[has], -np.logaddexp(0.0, -found))
        no[has] = np.logaddexp(no[has], -np.logaddexp(0.0, found))
    answered = usable.any(axis=0)
    joined = np.zeros(logits.shape[1:])
    joined[answered] = yes[answered] - no[answered]
    return joined


def stack_of_logits(logits: HeadLogits, usable: Usable, weights: Float[np.ndarray, " heads"]) -> Logits:
    """Weighted sum of logits, the weights shared among the heads a clip has; 0 where it has none.

    A clip whose heads all have weight 0 gets them with equal weights.

    >>> stack_of_logits(np.array([[[2.0]], [[-1.0]]]), np.ones((2, 1), dtype=bool), np.array([0.75, 0.25])).tolist()
    [[1.25]]
    """
    share = weights[:, None] * usable
    share = np.where(share.sum(axis=0) > 0, share, usable)
    share = share / np.maximum(share.sum(axis=0), np.finfo(np.float64).tiny)
    joined = np.zeros(logits.shape[1:])
    for said, has, part in zip(logits, usable, share, strict=True):
        joined[has] += part[has, None] * said[has]
    return joined


def fit_stack_of_logits(logits: HeadLogits, truth: Truth) -> Minimum:
    """The weights of `stack_of_logits` that minimise mean binary cross-entropy: convex, solved to a proven gap.

    Args:
        logits: Finite; of the clips that every head can answer for.
        truth: Which classes these clips have.

    >>> certain, guess = [[3.0], [-3.0]], [[0.0], [0.0]]
    >>> fit_stack_of_logits(np.array([certain, guess]), np.array([[True], [False]])).point.round(4).tolist()
    [1.0, 0.0]
    """
    return minimise_on_simplex(lambda weights: _binary_cross_entropy(weights, logits, truth), len(logits))


def _binary_cross_entropy(weights: Float[np.ndarray, " heads"], logits: HeadLogits, truth: Truth) -> Local:
    """Mean of log(1 + e^l) - y l over clips and classes, l = sum_h w_h l_h, and its derivatives: means of (p - y) l_h
    and of p (1 - p) l_h l_g.
    """
    size, clips, classes = logits.shape
    value, gradient, hessian = 0.0, np.zeros(size), np.zeros((size, size))
    rows = max(1, CHUNK_BYTES // (8 * size * classes))
    for start in range(0, clips, rows):
        part = slice(start, start + rows)
        said = logits[:, part].astype(np.float64).reshape(size, -1)
        joined, has = weights @ said, truth[part].reshape(-1)
        value += np.logaddexp(0.0, joined).sum() - joined[has].sum()
        likely = np.exp(-np.logaddexp(0.0, -joined))
        gradient += said @ (likely - has)
        hessian += (said * (likely * (1 - likely))) @ said.T
    count = clips * classes
    return Local(value=float(value) / count, gradient=gradient / count, hessian=hessian / count)
