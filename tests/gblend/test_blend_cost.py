"""What an online super-epoch costs, in what can be counted exactly; `benchmarks.blend_cost` measures the time."""

import pytest

from benchmarks.blend_cost import settings, train, write_clips
from gblend.data import load_run_data


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), 30)


@pytest.mark.parametrize(
    ("method", "blend", "decodes"),
    [
        ("naive", {}, 1.0),
        ("equal", {}, 1.0),
        ("online", {}, 2.0),
        ("online", {"probes": "sequential"}, 4.0),  # rgb, logmel and fused, one after another, and the run
    ],
)
def test_a_clip_is_decoded_once_for_the_run_and_once_for_all_probes_together(clips, method, blend, decodes):
    config = settings(("rgb", "logmel"), 1, **blend)
    assert train(method, load_run_data(clips, config), config).decodes == decodes
