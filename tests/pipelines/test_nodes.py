import random
import subprocess

import pytest

from benchmarks.job import ROOT, checksums, environment, preprocess_command
from benchmarks.kills import CLIPS_PER_SHARD, run_with_kill, temporary_files
from benchmarks.nodes import simulated_nodes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes(undisturbed):
    """A cluster of one node that the tests let grow."""
    with simulated_nodes(1, temporary=temporary_files(undisturbed)) as nodes:
        yield nodes


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_nodes_gives_the_same_bytes(undisturbed, nodes, count, tmp_path):
    nodes.grow(count)
    out = tmp_path / "data"
    command = preprocess_command(
        undisturbed.manifest, undisturbed.videos, out, *undisturbed.features, clips_per_shard=CLIPS_PER_SHARD
    )
    done = subprocess.run(command, env=environment(nodes.address), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert checksums(out) == undisturbed.checksums


def test_a_node_that_dies_midway_gives_the_same_bytes(undisturbed, nodes):
    nodes.grow(3)
    outcome = run_with_kill(undisturbed, "node", moment=0.3, rng=random.Random(1), nodes=nodes)
    assert outcome.hit
    assert outcome.recovered, outcome
    assert outcome.identical, outcome
    assert outcome.untouched, outcome
    assert outcome.leftovers == ()
