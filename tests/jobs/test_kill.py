import random

import pytest

from benchmarks.kills import run_with_kill

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "moment"), [("worker", 0.4), ("decoder", 0.5), ("driver", 0.6)])
def test_a_kill_changes_no_byte_and_leaves_nothing_behind(undisturbed, kind, moment):
    outcome = run_with_kill(undisturbed, kind, moment=moment, rng=random.Random(0))
    assert outcome.hit
    assert outcome.identical, outcome
    assert outcome.untouched, outcome
    assert outcome.leftovers == ()
    assert outcome.recovered or kind == "driver"
