"""What `jobs/cluster/` holds and what a submission uploads, as far as it can be told without a cloud."""

import copy
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs.recipes import RECIPES
from tests.commands import assert_taken, commands_in, require_fitting_data

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "jobs" / "cluster"
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
PACKAGES = ("schemas", "pipelines", "gblend", "jobs")
RAYJOBS = sorted(CLUSTER.glob("rayjob-*.yaml"))
UPLOAD_LIMIT_BYTES = 5 * 2**20
"""A hundredth of Ray's limit."""


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(.*)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    return version


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory) -> Path:
    """The archive that `ray job submit --working-dir .` makes of this checkout, with things in it that lie about."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in (*PACKAGES, "pyproject.toml", "README.md", ".rayignore", ".gitignore"):
        (checkout / name).symlink_to(ROOT / name)
    (checkout / "mine.py").write_text("a network of the user's own")
    for name in (
        "clips.parquet",
        "videos/a.mp4",
        "my-run/checkpoint.pt",
        ".venv/bin/python",
        ".git/objects/00/11",
        "x",
    ):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(bytes(1000))
    archive = tmp_path_factory.mktemp("upload") / "package.zip"
    create_package(str(checkout), archive, include_gitignore=True)
    return archive


def test_a_submission_uploads_every_module_and_template_of_the_packages(uploaded):
    names = set(zipfile.ZipFile(uploaded).namelist())
    wanted = [path for name in PACKAGES for kind in ("*.py", "*.jinja") for path in (ROOT / name).rglob(kind)]
    assert {str(path.relative_to(ROOT)) for path in wanted} <= names


def test_a_submission_uploads_the_users_own_modules_and_nothing_else(uploaded):
    names = zipfile.ZipFile(uploaded).namelist()
    others = [name for name in names if not name.startswith(tuple(f"{package}/" for package in PACKAGES))]
    assert others == ["mine.py"]
    assert not [name for name in names if "__pycache__" in name or name.startswith("jobs/cluster")]
    assert uploaded.stat().st_size < UPLOAD_LIMIT_BYTES


def aws() -> dict:
    return yaml.safe_load((CLUSTER / "aws.yaml").read_text())


def test_the_aws_cluster_is_valid_by_rays_own_schema():
    validate_config(prepare_config(copy.deepcopy(aws())))
    misspelt = aws()
    misspelt["available_node_types"]["gpu"]["max_worker"] = 4
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(misspelt))


def test_the_aws_cluster_runs_nothing_of_rays_example_settings():
    filled = prepare_config(copy.deepcopy(aws()))
    commands = [filled[f"{part}setup_commands"] for part in ("", "head_", "worker_")]
    assert commands == [[], ["pip install -c /home/ray/gblend/constraints.txt boto3"], []]


def test_no_node_of_the_aws_cluster_gets_the_image_or_the_rights_that_ray_would_choose():
    """Ray's own image has a driver that is too old for ours, and only the head may start machines."""
    nodes = {name: node["node_config"] for name, node in aws()["available_node_types"].items()}
    assert {node.get("ImageId") for node in nodes.values()} == {"AMI"}
    profiles = {name: node["IamInstanceProfile"]["Arn"].rpartition("/")[2] for name, node in nodes.items()}
    assert profiles == {"head": "gblend-head", "cpu": "gblend-node", "gpu": "gblend-node"}


def test_the_page_and_the_rayjob_train_with_the_same_numbers_on_what_the_nodes_have():
    (page,) = [c for c in commands_in((ROOT / "docs" / "clusters.md").read_text()) if c[:2] == ["train", "paper-r3d50"]]
    (job,) = commands_in(yaml.safe_load((CLUSTER / "rayjob-train.yaml").read_text())["spec"]["entrypoint"])
    options = [dict(zip(c[2::2], c[3::2], strict=True)) for c in (page, job)]
    where = ("--data", "--out", "--method")
    ours, theirs = ({name: given for name, given in each.items() if name not in where} for each in options)
    assert ours == theirs
    pieces = int(ours["--workers"]) * int(ours["--micro-batches"])
    assert RECIPES["paper-r3d50"]().batch_size == 4 * pieces, "4 clips at a time, as the page says"
    assert int(ours["--loader-processes"]) < int(ours["--cpus-per-worker"])


def test_all_nodes_of_the_aws_cluster_use_the_token_that_is_mounted():
    options = " ".join(aws()["docker"]["run_options"])
    (place,) = aws()["file_mounts"]
    assert "--env RAY_AUTH_MODE=token" in options
    assert f"--env RAY_AUTH_TOKEN_PATH={place}" in options


@pytest.mark.parametrize("path", RAYJOBS, ids=lambda path: path.stem)
def test_the_command_of_a_rayjob_is_one_the_program_takes(path, monkeypatch, capsys):
    assert_taken(commands_in(yaml.safe_load(path.read_text())["spec"]["entrypoint"]), monkeypatch, capsys)


def test_the_rayjobs_that_train_take_the_data_that_the_one_that_preprocesses_makes(monkeypatch, capsys):
    jobs = [yaml.safe_load(path.read_text())["spec"]["entrypoint"] for path in RAYJOBS]
    assert require_fitting_data(assert_taken(commands_in("\n".join(jobs)), monkeypatch, capsys)) == 2


@pytest.mark.parametrize("path", RAYJOBS, ids=lambda path: path.stem)
def test_the_pods_of_a_rayjob_mount_volumes_they_have_and_run_the_image_s_ray(path):
    cluster = yaml.safe_load(path.read_text())["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert [v["name"] for v in container["volumeMounts"]] == [v["name"] for v in pod["volumes"]]
        assert container["image"] in ("REGISTRY/gblend:cpu", "REGISTRY/gblend:gpu")
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == container["image"].endswith(":gpu")
        assert container["resources"]["limits"] == container["resources"]["requests"]


@pytest.mark.parametrize(("name", "groups"), [("train", 1), ("tune", 2)])
def test_the_nodes_of_a_training_rayjob_hold_its_workers_and_those_of_a_search_two_trials(name, groups):
    spec = yaml.safe_load((CLUSTER / f"rayjob-{name}.yaml").read_text())["spec"]
    flag = {name: float(value) for name, value in re.findall(r"--([a-z-]+) (\d+)", spec["entrypoint"])}
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    node = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    fitting = min(node["nvidia.com/gpu"] // flag["gpus-per-worker"], float(node["cpu"]) // flag["cpus-per-worker"])
    assert flag["workers"] * groups == fitting * group["replicas"]


def test_both_bases_of_the_image_have_the_pinned_ray_and_a_python_it_is_pinned_for():
    bases = re.findall(r"rayproject/ray:(\S+)-py3(\d+)-(cpu|gpu)", DOCKERFILE)
    assert {kind for *_, kind in bases} == {"cpu", "gpu"}
    assert {(ray, minor) for ray, minor, _ in bases} == {(pinned("ray"), "11")}


def test_everything_the_image_copies_is_there_and_sent_to_the_builder():
    sent = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    lines = re.findall(r"^COPY --chown=ray (.*) \S+$", DOCKERFILE, flags=re.MULTILINE)
    copied = {name for line in lines for name in line.split()}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"], *PACKAGES}
    assert needed <= copied


def test_the_image_installs_what_the_project_and_the_extras_of_the_image_ask_for():
    (program,) = re.findall(r'python -c "(import sys, tomllib.*?)" "\$\{EXTRAS\}"', DOCKERFILE)
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, flags=re.MULTILINE)
    line = [sys.executable, "-c", program, extras]
    printed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert printed == [
        *project["dependencies"],
        *(need for extra in extras.split(",") for need in project["optional-dependencies"][extra]),
    ]
