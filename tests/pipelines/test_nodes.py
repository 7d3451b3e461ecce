import random
import subprocess

import pytest

from benchmarks.job import ROOT, checksums, environment, preprocess_command
from benchmarks.kills import CLIPS_PER_SHARD, make_reference, run_with_kill, temporary_files
from benchmarks.nodes import simulated_nodes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return make_reference(tmp_path_factory.mktemp("nodes"), clips=16, seconds=0.6)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_nodes_gives_the_same_bytes(reference, count, tmp_path):
    out = tmp_path / "data"
    command = preprocess_command(
        reference.manifest, reference.videos, out, *reference.features, clips_per_shard=CLIPS_PER_SHARD
    )
    with simulated_nodes(count) as nodes:
        done = subprocess.run(command, env=environment(nodes.address), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert checksums(out) == reference.checksums


def test_a_node_that_dies_midway_gives_the_same_bytes(reference):
    with simulated_nodes(3, temporary=temporary_files(reference)) as nodes:
        outcome = run_with_kill(reference, "node", moment=0.3, rng=random.Random(1), nodes=nodes)
    assert outcome.hit
    assert outcome.recovered, outcome
    assert outcome.identical, outcome
    assert outcome.untouched, outcome
    assert outcome.leftovers == ()
