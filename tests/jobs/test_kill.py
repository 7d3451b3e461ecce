import random

import pytest

from benchmarks.kills import make_reference, run_with_kill

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return make_reference(tmp_path_factory.mktemp("kill"), clips=16, seconds=0.6)


@pytest.mark.parametrize(("kind", "moment"), [("worker", 0.4), ("decoder", 0.5), ("driver", 0.6)])
def test_a_kill_changes_no_byte_and_leaves_nothing_behind(reference, kind, moment):
    outcome = run_with_kill(reference, kind, moment=moment, rng=random.Random(0))
    assert outcome.hit
    assert outcome.identical, outcome
    assert outcome.untouched, outcome
    assert outcome.leftovers == ()
    assert outcome.recovered or kind == "driver"
