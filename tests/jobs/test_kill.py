import random

import pytest

from benchmarks.kills import Strike, run_with_kills

pytestmark = pytest.mark.slow

STRIKES = (
    Strike(kind="worker", moment=0.2),
    Strike(kind="decoder", moment=0.4),
    Strike(kind="driver", moment=0.6),
)
"""Were the death of a worker or of a decoder not overcome, there would be no driver to kill after it."""


def test_kills_change_no_byte_and_leave_nothing_behind(undisturbed):
    outcome = run_with_kills(undisturbed, STRIKES, rng=random.Random(0))
    assert outcome.hit, outcome
    assert outcome.identical, outcome
    assert outcome.untouched, outcome
    assert outcome.leftovers == ()
    assert outcome.reruns == 1
