"""A user's own tensors as a modality: read as they were written, present where they are, seen by a network, trained."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gblend.batches import measuring_loader
from gblend.clips import ClipReader, read_dataset_info, read_index, resolve_modalities
from gblend.config import EncodersConfig, ModelConfig
from gblend.data import load_run_data
from gblend.inputs import to_inputs, whole_tensor
from gblend.inventory import take_inventory
from gblend.methods import RunSpec
from gblend.model import make_model
from gblend.runner import Runner
from gblend.summary import summarize_dataset
from gblend.tensor_encoder import TensorEncoder
from schemas import DatasetInfo, FeatureSpec, LogmelSpec, RgbSpec, TensorSpec, tensor_schema
from schemas.tensor import is_own_name
from tests.gblend.shards import gradient_clip, write_dataset
from tests.gblend.tiny import tiny_config

SPEC = FeatureSpec(modalities=("rgb", "logmel"), rgb=RgbSpec(fps=10.0, fixed_size_px=(16, 16)), logmel=LogmelSpec())
SHAPE = (4, 3)
MISSING = ("train3", "val1")


def tensor_of(name: str, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """It tells the class of the clip, which nothing else of it does."""
    rng = np.random.default_rng([seed, *name.encode()])
    label = int(name.lstrip("trainvles")) % 3
    return (10 + rng.normal(size=shape) + 5 * np.eye(3)[label]).astype(np.float32)


def with_column(root: Path, *, name="pose", missing=MISSING, seed=0, shape=SHAPE) -> str:
    """A data set of small clips, and a column beside it as the documents describe it, by nothing but pyarrow."""
    members = {
        split: [gradient_clip(f"{split}{i}", length=4, height=16, width=16, seed=i, label=i % 3) for i in range(count)]
        for split, count in {"train": 30, "val": 6, "test": 6}.items()
    }
    write_dataset(root, members, spec=SPEC, per_shard=16)
    info = DatasetInfo.loads((root / "dataset.json").read_text(), what="x")
    spec = TensorSpec(shape=shape, mean=(10.0, 9.0, 0.0), sd=(5.0, 5.0, 2.0), sha256=f"{seed}")
    for shard in info.shards:
        with pa.memory_map(str(root / shard.name / "clips.arrow")) as file:
            ids = pa.ipc.open_file(file).read_all()["clip_id"].to_pylist()
        schema = tensor_schema(name, spec)
        with pa.ipc.new_file(str(root / shard.name / f"{name}.arrow"), schema) as file:
            for clip_id in ids:
                has = clip_id not in missing
                values = tensor_of(clip_id, seed, shape).reshape(-1).tolist() if has else None
                row = {"clip_id": clip_id, f"has_{name}": has, "values": values}
                file.write_batch(pa.RecordBatch.from_pylist([row], schema=schema))
    (root / "dataset.json").write_text(replace(info, columns={name: spec}).dumps())
    return str(root)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return with_column(tmp_path_factory.mktemp("column") / "data")


def run_config(**changed):
    return replace(tiny_config(), **{"modalities": ("rgb", "pose"), "missing": "drop", **changed})


def test_the_reader_gives_every_tensor_as_it_was_written(data):
    info = read_dataset_info(data)
    index = read_index(data, info, "train", ("pose",))
    reader = ClipReader(data, info, ("pose",))
    for at, clip_id in enumerate(index.clip_ids):
        clip = reader.read(index.shards[at], int(index.rows[at]))
        assert clip.has("pose") == index.present["pose"][at] == (clip_id not in MISSING)
        if clip.has("pose"):
            np.testing.assert_array_equal(clip.own["pose"], tensor_of(clip_id))


def test_all_modalities_of_a_data_set_are_the_known_ones_then_the_users_own(data):
    info = read_dataset_info(data)
    assert resolve_modalities(info, ()) == ("rgb", "logmel", "pose")
    assert resolve_modalities(info, ("pose", "rgb")) == ("rgb", "pose")


@pytest.mark.parametrize(
    ("wanted", "remedy"), [("flow", "preprocess --modalities flow"), ("touch", "column --name touch")]
)
def test_a_modality_that_is_not_there_is_an_error_that_says_how_to_add_it(data, wanted, remedy):
    with pytest.raises(ValueError, match=rf"no modality '{wanted}'; it holds rgb, logmel, pose; add .*{remedy}"):
        resolve_modalities(read_dataset_info(data), ("rgb", wanted))


def test_a_network_sees_every_channel_less_its_mean_over_its_sd_and_the_channels_first(data):
    loaded = load_run_data(data, run_config())
    assert loaded.shapes == {"pose": (3, 4)}
    batch = next(measuring_loader(loaded.splits["test"], range(6), batch_size=6, rank=0, world=1))
    inputs = to_inputs(batch.arrays, loaded.spec)["pose"]
    for at, position in enumerate(batch.position.tolist()):
        expected = (tensor_of(f"test{position}") - [10, 9, 0]) / [5, 5, 2]
        np.testing.assert_allclose(inputs[at], expected.T, rtol=1e-5, atol=1e-6)


def test_clips_without_the_tensor_are_left_out_or_masked_by_the_policy(data):
    dropped = load_run_data(data, run_config())
    assert dropped.excluded == {"train": 1, "val": 1, "test": 0}
    kept = load_run_data(data, run_config(missing="zero"))
    assert kept.excluded == {"train": 0, "val": 0, "test": 0}
    batch = next(measuring_loader(kept.splits["val"], range(6), batch_size=6, rank=0, world=1))
    assert batch.present["pose"].tolist() == [f"val{i}" not in MISSING for i in range(6)]
    assert not batch.arrays["pose"][1].any()


def test_other_tensors_make_it_other_data_for_the_runs_that_read_them(data, tmp_path):
    other = with_column(tmp_path / "other", seed=1)
    pose = [load_run_data(place, run_config()).fingerprint for place in (data, other)]
    without = [load_run_data(place, run_config(modalities=("rgb", "logmel"))).fingerprint for place in (data, other)]
    assert pose[0] != pose[1]
    assert without[0] == without[1]


def test_a_file_with_other_values_than_the_document_says_is_refused(tmp_path):
    place = with_column(tmp_path / "data")
    document = json.loads((tmp_path / "data/dataset.json").read_text())
    document["columns"]["pose"]["sha256"] = "other"
    (tmp_path / "data/dataset.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"pose\.arrow holds other values than dataset\.json says; add them again"):
        load_run_data(place, run_config())


def test_a_run_trains_on_it_and_its_network_learns_from_it(data, tmp_path):
    config = run_config(epochs=10, missing="zero")
    loaded = load_run_data(data, config)
    runner = Runner(data=loaded, config=config, data_path=data)
    result = runner.run(RunSpec(method="equal", seed=0), str(tmp_path / "run"))
    assert tuple(result.heads) == ("rgb", "pose", "fused")
    assert result.scores["test"]["pose"].value == 1.0
    assert result.scores["test"]["pose"].count == 6
    assert result.scores["val"]["pose"].count == 5  # one lacks it
    state = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert "encoders.pose.layers.0.weight" in str(state)


def learned(shape, signal):
    """Accuracy of a network of one modality after a few steps on tensors that tell the class."""
    torch.manual_seed(0)
    encoder = TensorEncoder(shape)
    network = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.output_dim, 3))
    label = torch.arange(96) % 3
    values = signal(label) + 0.3 * torch.randn(96, *shape)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(values), label).backward()
        optimizer.step()
    network.eval()
    return float((network(values).argmax(dim=1) == label).float().mean())


def test_a_vector_is_learned_from():
    assert learned((6,), lambda label: torch.eye(3)[label].repeat(1, 2)) > 0.95


def test_what_differs_only_in_its_order_in_time_is_learned_from():
    """The class is whether a channel rises, falls, or stands: the mean over time is the same."""
    slope = torch.tensor([-1.0, 0.0, 1.0])
    rise = torch.linspace(-1, 1, 12)
    assert learned((2, 12), lambda label: (slope[label][:, None, None] * rise).repeat(1, 2, 1)) > 0.95


@pytest.mark.parametrize("shape", [(6,), (2, 12), (2, 1)])
def test_one_clip_alone_in_a_batch_is_trained_on_as_beside_others(shape):
    """Where few clips have the tensor, a worker's share of a batch may hold a single one."""
    torch.manual_seed(0)
    encoder = TensorEncoder(shape).train()
    clips = torch.randn(5, *shape)
    alone = torch.cat([encoder(clip[None]) for clip in clips])
    torch.testing.assert_close(alone, encoder(clips))
    alone.sum().backward()
    assert all(values.grad is not None and values.grad.isfinite().all() for values in encoder.parameters())


def test_how_large_a_single_number_is_is_learned_from():
    """The three classes have one sign: a norm of a layer without bias would make them the same."""
    assert learned((1,), lambda label: 2 * label[:, None] + 1.0) > 0.9


def test_a_tensor_of_more_axes_needs_a_network_of_its_own():
    with pytest.raises(ValueError, match=r"tensors of map have 3 axes .*; give one of your own by model"):
        make_model(("rgb", "map"), 3, ModelConfig(), seed=0, shapes={"map": (2, 4, 4)})


def test_a_network_of_ones_own_takes_the_place_of_ours():
    config = ModelConfig(encoders=EncodersConfig(other={"pose": "tests.gblend.test_tensor_column:Pooled"}))
    network = make_model(("rgb", "pose"), 3, config, seed=0, shapes={"pose": (3, 4)})
    assert isinstance(network.encoders["pose"].network, Pooled)


class Pooled(torch.nn.Module):
    output_dim = 3

    def __init__(self, channels: int) -> None:
        super().__init__()
        assert channels == 3

    def forward(self, x):
        return x.mean(dim=2)


def test_a_name_that_torch_uses_itself_is_one_line():
    with pytest.raises(ValueError, match="torch has its own use for the name 'values'; give the modality another one"):
        make_model(("rgb", "values"), 3, ModelConfig(), seed=0, shapes={"values": (3,)})


def test_every_name_that_torch_uses_itself_is_refused_as_that_of_a_column():
    used = {name for name in dir(torch.nn.ModuleDict()) if not name.startswith("_")}
    assert len(used) > 50
    assert not [name for name in used if is_own_name(name)]


def test_the_channels_come_first_whatever_the_axes():
    spec = TensorSpec(shape=(2, 3, 4), mean=(0.0,) * 4, sd=(1.0,) * 4, sha256="")
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    seen = whole_tensor(values, spec)
    assert seen.shape == whole_tensor(None, spec).shape == (4, 2, 3)
    assert seen[3, 1, 2] == values[1, 2, 3]


def test_a_channel_of_large_numbers_is_standardised_as_exactly_as_they_are_stored():
    spec = TensorSpec(shape=(3, 1), mean=(16777215.25,), sd=(0.75,), sha256="")  # no quarters in single precision
    seen = whole_tensor(np.array([[16777214], [16777215], [16777216]], dtype=np.float32), spec)
    np.testing.assert_allclose(seen[0], np.array([-1.25, -0.25, 0.75]) / 0.75, rtol=1e-6)


def test_the_report_names_the_column_among_the_features(data):
    assert summarize_dataset(data).features["pose"] == {"shape": "4x3"}


def test_an_inventory_counts_the_clips_that_have_the_tensor_and_the_bytes_of_its_files(data):
    found = take_inventory(data)
    assert {split.split: split.present["pose"] for split in found.splits} == {"train": 29, "val": 5, "test": 6}
    (pose,) = [kind for kind in found.storage if kind.name == "pose"]
    assert (pose.clips, pose.files) == (40, 4)
    assert pose.bytes == sum(path.stat().st_size for path in Path(data).rglob("pose.arrow"))
