import random

import pytest

from benchmarks.kills import Strike, run_with_kills, temporary_files
from benchmarks.nodes import simulated_nodes


@pytest.mark.slow
def test_two_nodes_of_which_one_dies_midway_give_the_bytes_of_one(undisturbed):
    with simulated_nodes(2, temporary=temporary_files(undisturbed)) as nodes:
        outcome = run_with_kills(undisturbed, [Strike(kind="node", moment=0.3)], rng=random.Random(1), nodes=nodes)
    assert outcome.hit
    assert outcome.recovered, outcome
    assert outcome.identical, outcome
    assert outcome.untouched, outcome
    assert outcome.leftovers == ()
