"""Which clip comes when, and which clips are T, V and T': counted and compared across workers and loader processes."""

import numpy as np
import pytest
import torch

from gblend.batches import measuring_loader, training_batches, training_loader
from gblend.config import BlendConfig, InputConfig, TrainConfig
from gblend.data import load_run_data
from gblend.feeder import Feeding
from schemas import FeatureSpec, RgbSpec
from tests.gblend.shards import gradient_clip, write_dataset


def config(**changes) -> TrainConfig:
    settings = {"name": "test", "input": InputConfig(frames=3, crop_px=16, mel_frames=10)}
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """30 training clips of 3 classes in 15 groups, two a group; 4 of test."""
    clips = [gradient_clip(f"c{i}", seed=i, label=(i // 2) % 3, group=f"g{i // 2}") for i in range(30)]
    root = tmp_path_factory.mktemp("data")
    spec = FeatureSpec(rgb=RgbSpec(fps=20.0))
    return write_dataset(root, {"train": clips, "test": [gradient_clip(f"t{i}") for i in range(4)]}, spec=spec)


def open_data(data: str, **changes):
    return load_run_data(data, config(**changes))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [10, 47, 64, 101])
def test_every_clip_comes_once_an_epoch_for_any_number_of_workers(count, world):
    shares = [training_batches(count, batch_size=16, entropy=(0,), rank=r, world=world) for r in range(world)]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(count))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [10, 47, 64, 101])
def test_batches_and_shares_differ_by_at_most_one_clip_and_none_is_too_small_for_batch_norm(count, world):
    shares = [training_batches(count, batch_size=16, entropy=(0,), rank=r, world=world) for r in range(world)]
    assert len({len(share) for share in shares}) == 1
    wholes = [sum(map(len, parts)) for parts in zip(*shares, strict=True)]
    assert max(wholes) - min(wholes) <= 1
    for parts in zip(*shares, strict=True):
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 2


def test_the_clips_of_a_batch_do_not_depend_on_the_number_of_workers():
    alone = training_batches(50, batch_size=8, entropy=(3, 1), rank=0, world=1)
    shares = [training_batches(50, batch_size=8, entropy=(3, 1), rank=r, world=3) for r in range(3)]
    assert [sorted(b) for b in alone] == [
        sorted(i for part in parts for i in part) for parts in zip(*shares, strict=True)
    ]


def test_epochs_are_shuffled_differently():
    first, second = (training_batches(50, batch_size=8, entropy=(0, 0, e), rank=0, world=1) for e in (1, 2))
    assert first != second


@pytest.mark.parametrize(
    ("asked", "remedy"),
    [
        ({"batch_size": 6, "world": 4}, "use at most 3 workers, or a larger batch_size"),
        ({"batch_size": 6, "world": 2, "micro_batches": 3}, "use at most 1 worker, or fewer micro_batches or a larger"),
        ({"batch_size": 1, "world": 1}, "; use a larger batch_size"),
    ],
)
def test_batches_too_small_for_the_workers_are_refused_and_never_made_larger(asked, remedy):
    with pytest.raises(ValueError, match=rf"48 training clips in batches of {asked['batch_size']} .*{remedy}"):
        training_batches(48, entropy=(0,), rank=0, **asked)


@pytest.mark.parametrize(("count", "world"), [(9, 2), (130, 3), (1, 4), (0, 2)])
def test_measuring_meets_every_clip_once(data, count, world):
    clips = open_data(data).train.only(("logmel",))
    positions = [i % len(clips) for i in range(count)]
    met = [
        int(p)
        for rank in range(world)
        for batch in measuring_loader(clips, positions, batch_size=4, rank=rank, world=world)
        for p in batch.position
    ]
    assert sorted(met) == sorted(positions)


def windows(data, *, rank=0, world=1, feeding=None, seed=0) -> dict[int, dict[str, torch.Tensor]]:
    clips = load_run_data(data, config(), feeding).train
    batches = training_batches(len(clips), batch_size=6, entropy=(seed, 0, 0), rank=rank, world=world)
    return {
        int(p): {name: values[i] for name, values in batch.arrays.items()}
        for batch in training_loader(clips, batches, (seed, 0, 0))
        for i, p in enumerate(batch.position)
    }


def assert_same_windows(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for position, arrays in one.items():
        for name, values in arrays.items():
            assert torch.equal(values, other[position][name]), (position, name)


def test_windows_do_not_depend_on_the_number_of_workers(data):
    assert_same_windows(windows(data), windows(data, world=2) | windows(data, rank=1, world=2))


def test_windows_depend_on_the_seed(data):
    one, other = windows(data), windows(data, seed=1)
    assert any(not torch.equal(one[p]["rgb"], other[p]["rgb"]) for p in one)


def test_loading_leaves_the_global_random_states_alone(data):
    torch.manual_seed(0)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    windows(data, feeding=Feeding())
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_branch_sees_the_windows_of_the_whole(data):
    clips = open_data(data).train
    whole, part = clips[5, (1, 2)], clips.only(("logmel",))[5, (1, 2)]
    assert list(part["arrays"]) == list(part["present"]) == ["logmel"]
    np.testing.assert_array_equal(part["arrays"]["logmel"], whole["arrays"]["logmel"])


def ids(clips, positions=None) -> set[str]:
    return {clips.index.clip_ids[i] for i in (range(len(clips)) if positions is None else positions)}


def groups(clips) -> set[str]:
    return set(clips.index.groups)


def test_t_and_v_part_the_training_split_by_group(data):
    run = open_data(data)
    assert ids(run.train).isdisjoint(ids(run.heldout))
    assert ids(run.train) | ids(run.heldout) == {f"c{i}" for i in range(30)}
    assert groups(run.train).isdisjoint(groups(run.heldout))
    assert run.heldout_ids == run.heldout.index.clip_ids


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.45])
def test_the_slice_is_as_large_as_v_and_part_of_t(data, share):
    run = open_data(data, blend=BlendConfig(holdout_share=share))
    assert len(set(run.train_slice)) == len(run.train_slice) == len(run.heldout)
    assert ids(run.train, run.train_slice) <= ids(run.train)


def test_probes_train_on_a_stratified_part_of_whole_groups_that_holds_the_slice(data):
    run = open_data(data, blend=BlendConfig(probe_fraction=0.5))
    part = run.probe_part
    labels, names = run.train.index.labels[""].to_numpy()[part], np.array(run.train.index.groups)
    assert len(part) == len(run.train) // 2 == 12
    assert np.bincount(labels).tolist() == [4, 4, 4]
    assert set(names[part]).isdisjoint(np.delete(names, part))
    assert set(run.train_slice) <= set(part)
    assert len(run.train_slice) == len(run.heldout)


def test_the_part_probes_train_on_takes_nothing_from_t_and_v(data):
    whole, part = open_data(data), open_data(data, blend=BlendConfig(probe_fraction=0.5))
    assert whole.probe_part is None
    assert ids(whole.train) == ids(part.train)
    assert whole.heldout_ids == part.heldout_ids


def test_a_part_without_clips_is_an_error(data):
    with pytest.raises(
        ValueError, match=r"blend.probe_fraction \(0.01\) of 24 training clips in 12 groups is none or all"
    ):
        open_data(data, blend=BlendConfig(probe_fraction=0.01))


def test_class_counts_are_those_of_t(data):
    run = open_data(data)
    assert run.class_counts == {"": np.bincount(run.train.index.labels[""].to_numpy(), minlength=3).tolist()}
    assert sum(run.class_counts[""]) == len(run.train)


def test_the_hold_out_seed_decides_v_and_the_slice(data):
    first, again, other = (open_data(data, blend=BlendConfig(holdout_seed=s)) for s in (0, 0, 1))
    assert (first.heldout_ids, first.train_slice) == (again.heldout_ids, again.train_slice)
    assert first.heldout_ids != other.heldout_ids


def test_v_does_not_depend_on_what_else_the_run_is_told(data):
    plain = open_data(data)
    changed = open_data(data, epochs=99, batch_size=3, modalities=("rgb", "logmel"), input=InputConfig(crop_px=8))
    assert plain.heldout_ids == changed.heldout_ids


@pytest.fixture
def patchy(tmp_path) -> str:
    """20 clips of one class; 0-2 lack sound, 3-4 lack the picture; the picture of 5 is one frame, so it has no flow."""

    def clip(i: int):
        absent = {"logmel": None} if i < 3 else {"frames": None, "flow": None} if i < 5 else {}
        if i == 5:
            absent = {"flow": None, "frames": gradient_clip("x").frames[:1]}
        return gradient_clip(f"c{i}", seed=i, **absent)

    return write_dataset(tmp_path, {"train": [clip(i) for i in range(20)], "test": [clip(i) for i in range(2, 8)]})


def test_dropping_leaves_out_what_lacks_a_modality_and_counts_it(patchy):
    run = open_data(patchy, missing="drop")
    assert run.excluded == {"train": 6, "test": 4}
    assert ids(run.train) | ids(run.heldout) == {f"c{i}" for i in range(6, 20)}
    assert ids(run.splits["test"]) == {"c6", "c7"}


def test_only_modalities_of_the_run_count_as_missing(patchy):
    assert open_data(patchy, missing="drop", modalities=("rgb", "flow")).excluded == {"train": 3, "test": 3}
    assert open_data(patchy, missing="drop", modalities=("rgb", "logmel")).excluded == {"train": 5, "test": 3}


def test_zero_keeps_clips_with_a_mask(patchy):
    run = open_data(patchy, missing="zero")
    assert run.excluded == {"train": 0, "test": 0}
    mute, blind = (run.splits["test"][position, None] for position in (0, 1))
    assert mute["present"] == {"rgb": True, "flow": True, "logmel": False}
    assert blind["present"] == {"rgb": False, "flow": False, "logmel": True}
    assert not mute["arrays"]["logmel"].any()
    assert mute["arrays"]["rgb"].any()


def test_zero_still_leaves_out_clips_that_have_nothing_for_the_run(patchy):
    assert open_data(patchy, missing="zero", modalities=("rgb", "flow")).excluded == {"train": 2, "test": 2}


def test_a_picture_of_one_frame_has_no_flow(patchy):
    clips = open_data(patchy, missing="zero").splits["test"]
    position = clips.index.clip_ids.index("c5")
    assert clips[position, None]["present"] == {"rgb": True, "flow": False, "logmel": True}


@pytest.mark.parametrize(("missing", "quantifier"), [("drop", "all"), ("zero", "any")])
def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path, missing, quantifier):
    clips = [gradient_clip(f"c{i}", frames=None, flow=None) for i in range(10)]
    data = write_dataset(tmp_path, {"train": clips, "test": clips})
    modalities = () if missing == "drop" else ("rgb", "flow")
    with pytest.raises(ValueError, match=f"no clip of split 'train' has {quantifier} of rgb, flow"):
        open_data(data, missing=missing, modalities=modalities)


def small_set(root, **splits) -> str:
    spec = FeatureSpec(rgb=RgbSpec(fps=20.0))
    clips = [gradient_clip(f"c{i}", seed=i, label=i % 3, uri=f"v{i}.mp4") for i in range(12)]
    return write_dataset(root, {"train": clips, **splits}, spec=spec)


@pytest.mark.parametrize("split", ["val", "test"])
def test_one_split_to_score_on_is_enough(tmp_path, split):
    data = small_set(tmp_path, **{split: [gradient_clip("t")]})
    assert list(open_data(data).splits) == [split]


def test_no_split_to_score_on_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no clip in split 'val' or 'test': there is nothing to score on"):
        open_data(small_set(tmp_path))


def test_a_source_video_in_train_and_test_is_an_error(tmp_path):
    data = small_set(tmp_path, test=[gradient_clip("t", uri="v3.mp4"), gradient_clip("u")])
    with pytest.raises(ValueError, match=r"1 source videos are both in train and in test, for example 'v3\.mp4'"):
        open_data(data)


def test_frames_are_not_enlarged_silently(data):
    with pytest.raises(ValueError, match=r"short side of 128 px, the recipe wants 256; preprocess with"):
        open_data(data, input=InputConfig(scale_px=256, crop_px=224))


def test_other_groups_make_it_other_data(tmp_path):
    one = open_data(small_set(tmp_path / "one", test=[gradient_clip("t", group="a")])).fingerprint
    same = open_data(small_set(tmp_path / "same", test=[gradient_clip("t", group="a")])).fingerprint
    other = open_data(small_set(tmp_path / "other", test=[gradient_clip("t", group="b")])).fingerprint
    assert (same == one, other == one) == (True, False)
