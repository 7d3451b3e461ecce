"""The feature specs as the command line fills them: one word chooses a recipe or an algorithm, and all that follows."""

import hashlib
import json

import pytest
import torch
from torchvision.models.optical_flow import raft_small

from jobs.cli import main, run
from jobs.preprocess import FLOW, LOGMEL
from schemas.flow import FlowSpec
from schemas.logmel import LogmelNumbers, LogmelSpec
from tests.media import ordinary_clip


def specs_of(*arguments: str) -> tuple[FlowSpec, LogmelSpec]:
    """What a job with the defaults of `jobs.preprocess` is called with."""
    seen = []

    def job(*, flow: FlowSpec = FLOW, logmel: LogmelSpec = LOGMEL) -> None:
        seen.append((flow, logmel))

    assert run(job, list(arguments), prog="job") == 0
    return seen[0]


@pytest.mark.parametrize("recipe", ["gblend-40", "vggish-64", "ast-128"])
def test_a_recipe_is_chosen_by_its_name_alone(recipe):
    assert specs_of("--logmel.recipe", recipe)[1] == LogmelSpec(recipe=recipe)


def test_custom_numbers_have_flags_of_their_own():
    _, logmel = specs_of(
        *("--logmel.recipe", "custom", "--logmel.custom.mels", "80", "--logmel.custom.fft-samples", "1024")
    )
    assert logmel == LogmelSpec(recipe="custom", custom=LogmelNumbers(mels=80, fft_samples=1024))


@pytest.mark.parametrize("algorithm", ["dis", "farneback", "tvl1", "raft"])
def test_an_algorithm_is_chosen_by_its_name_alone(algorithm):
    assert specs_of("--flow.algorithm", algorithm)[0] == FlowSpec(algorithm=algorithm)


def test_the_weights_of_raft_are_a_flag():
    flow, _ = specs_of(*("--flow.algorithm", "raft", "--flow.raft-model", "large", "--flow.raft-weights", "w.pth"))
    assert (flow.raft_model, flow.raft_weights) == ("large", "w.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--logmel.recipe", "ast-128", "--logmel.custom.mels", "64"), "set logmel.recipe to custom"),
        (("--flow.algorithm", "tvl1", "--flow.preset", "medium"), "flow.preset is an option of the algorithm dis"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_a_remedy(arguments, message, capsys):
    def job(*, flow: FlowSpec = FLOW, logmel: LogmelSpec = LOGMEL) -> None:
        raise AssertionError("called")

    assert run(job, list(arguments), prog="job") in (1, 2)
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_dataset_of_other_features_says_what_it_holds_and_not_where_the_weights_lay(ray_session, tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(raft_small().state_dict(), tmp_path / "weights.pth")
    ordinary_clip(tmp_path / "v" / "train" / "a" / "0.mp4", seconds=0.4)
    videos, clips, data = str(tmp_path / "v"), str(tmp_path / "clips.parquet"), str(tmp_path / "data")
    assert main(["manifest", "folder", "--videos", videos, "--out", clips]) == 0
    command = ["preprocess", "--manifest", clips, "--videos", videos, "--out", data, "--rgb.fps", "5"]
    raft = ["--flow.algorithm", "raft", "--flow.raft-weights", str(tmp_path / "weights.pth")]
    assert main([*command, *raft, "--logmel.recipe", "ast-128"]) == 0
    written = (tmp_path / "data" / "dataset.json").read_text()
    features = json.loads(written)["features"]
    checksum = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    assert features["flow"]["raft_weights_sha256"] == checksum
    assert (features["logmel"]["recipe"], features["logmel"]["mels"]) == ("ast-128", 128)
    assert "weights.pth" not in written
    assert (tmp_path / "data" / "train" / "00000" / "flow.arrow").exists()
    assert main([*command, "--flow.algorithm", "raft", "--flow.raft-weights", "none.pth"]) == 1
    assert "none.pth cannot be read" in capsys.readouterr().err
