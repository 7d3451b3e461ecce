"""Where early stopping stops: which epoch's network is the best on V."""

import math
from collections.abc import Sequence

from gblend.records import EpochRecord


def best_epoch(history: Sequence[EpochRecord]) -> int:
    """Of a run of one branch, the trained epoch of best metric on V; of equals that of lower loss, then the first.

    By the metric, because methods are compared by it, and because the loss turns up long before an accuracy goes down.
    With several tasks by the mean of their metrics, and the sum of their losses.
    """
    trained = [record for record in history if record.epoch > 0]

    def badness(record: EpochRecord) -> tuple[float, float, int]:
        scores = record.heldout.values()
        loss_nats = math.fsum(score.loss_nats for score in scores)
        metric = math.fsum(score.value for score in scores) / len(scores)
        return (
            -metric if math.isfinite(metric) else math.inf,
            loss_nats if math.isfinite(loss_nats) else math.inf,
            record.epoch,
        )

    return min(trained, key=badness).epoch
