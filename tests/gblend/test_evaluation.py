"""A finished run on a split: its own scores by one window, the mean over more, and what does not fit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from gblend import viewed
from gblend.clips import ClipReader, read_dataset_info
from gblend.evaluation import evaluate, measure_views, open_evaluation, shared_order
from gblend.feeder import Feeding
from gblend.inputs import Window, cut_window, to_inputs
from gblend.runs import load_run
from gblend.shard_cache import ShardCache
from gblend.trained import load_trained
from gblend.views import Views
from schemas import Task
from tests.gblend.evaluated import ACTION, CONFIG, EVENT, train_on, write_noisy
from tests.gblend.shards import write_done

ONE = Views(clips=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_noisy(tmp_path_factory.mktemp("noisy"))


@pytest.fixture(scope="module")
def equal(data, tmp_path_factory) -> str:
    return train_on(data, tmp_path_factory.mktemp("equal"), "equal")


def assert_its_own_scores(run: str, data: str) -> None:
    result = load_run(run).result
    for split in ("val", "test"):
        found = evaluate(*open_evaluation(run, data, split, ONE))
        assert found.heads == result.scores[split]
        assert found.ways == (result.predictions.scores[split] if result.predictions else {})
        assert found.judged == result.judged(split)


def test_the_central_window_alone_gives_the_scores_of_the_run(equal, data):
    assert_its_own_scores(equal, data)


@pytest.mark.parametrize("method", ["uni:rgb", "naive"])
def test_a_network_of_one_branch_has_its_own_scores_and_no_ways(method, data, tmp_path):
    assert_its_own_scores(train_on(data, tmp_path, method, replace(CONFIG, epochs=1)), data)


def test_several_tasks_have_their_own_scores_each_and_together(tmp_path):
    data = write_noisy(tmp_path / "data", tasks=(ACTION, EVENT))
    assert_its_own_scores(train_on(data, tmp_path / "run", "equal", replace(CONFIG, epochs=1)), data)


def test_pieces_of_a_split_give_the_same_as_all_of_it(equal, data, monkeypatch):
    trained, clips = open_evaluation(equal, data, "train", Views(clips=3))
    whole = measure_views(trained.model, clips.clips, spec=trained.spec)[""]
    monkeypatch.setattr("gblend.evaluation.PIECE_BYTES", 1)
    pieces = []
    found = measure_views(trained.model, clips.clips, spec=trained.spec, after=pieces.append)[""]
    assert pieces == [16, 8]
    np.testing.assert_array_equal(found.positions, np.arange(24))
    np.testing.assert_allclose(found.log_probs, whole.log_probs, atol=1e-6)


def test_each_clip_is_the_mean_of_the_probabilities_of_its_windows(equal, data):
    trained, test = open_evaluation(equal, data, "test", Views(clips=4, crops="three"))
    found = measure_views(trained.model, test.clips, spec=trained.spec)[""]
    info = read_dataset_info(data)
    reader = ClipReader(data, info, trained.inputs.modalities)
    for at, (shard, row) in enumerate(zip(test.clips.index.shards, test.clips.index.rows, strict=True)):
        clip = reader.read(shard, int(row))
        stored = len(clip.flow or clip.rgb)
        last = max(0, stored - 3)  # a window of two frames, two apart, spans three
        present = {name: torch.tensor([clip.has(name)]) for name in trained.inputs.modalities}
        total = {head: 0.0 for head in trained.model.head_names}
        for start in np.floor(np.linspace(0, last, 4)).astype(int):
            for left in (0.0, 0.5, 1.0):  # 24 wide, 16 high
                window = Window(start_frame=int(start), top=0.5, left=left, mirrored=False)
                arrays = cut_window(clip, window, CONFIG.input, info.features, trained.inputs.modalities)
                batch = to_inputs({name: torch.from_numpy(a)[None] for name, a in arrays.items()}, trained.spec)
                with torch.no_grad():
                    logits = trained.model(batch, present)
                for head in total:
                    total[head] = total[head] + logits[head].softmax(dim=1)[0] / 12
        for number, head in enumerate(found.heads):
            if head != "fused" and not clip.has(head):
                assert not found.counted[number, at]
            else:
                np.testing.assert_allclose(np.exp(found.log_probs[number, at]), total[head], rtol=1e-4)


def test_more_windows_say_something_else_than_one(equal, data):
    one, ten = (evaluate(*open_evaluation(equal, data, "test", views)) for views in (ONE, Views()))
    assert one.heads["rgb"].loss_nats != ten.heads["rgb"].loss_nats
    assert {way: score.count for way, score in one.ways.items()} == {way: s.count for way, s in ten.ways.items()}


def test_every_image_is_decoded_once_for_all_windows_of_its_clip(equal, data, monkeypatch):
    trained, test = open_evaluation(equal, data, "test", Views(clips=10, crops="three"))
    decoded = []
    decode = viewed.decode_image
    monkeypatch.setattr(viewed, "decode_image", lambda image, name: decoded.append(bytes(image)) or decode(image, name))
    measure_views(trained.model, test.clips, spec=trained.spec)
    assert len(decoded) == len(set(decoded))
    # Five clips of 8 fields and as many frames, one of 2 and 1, one of 1. The check of types that tests run with looks
    # at an image of each clip by chance, which may be the ninth, that no window shows.
    assert 5 * 16 + 3 + 1 <= len(decoded) <= 5 * 17 + 3 + 1


def test_loader_processes_change_no_bit(equal, data):
    views = Views(clips=3)
    alone, fed = (
        evaluate(*open_evaluation(equal, data, "test", views, feeding)) for feeding in (None, Feeding(processes=2))
    )
    assert fed == alone


def test_data_elsewhere_are_read_through_the_cache_of_the_node_each_file_once(equal, data, tmp_path, monkeypatch):
    write_done(Path(data))
    fs = fsspec.filesystem("memory")
    fs.put(data, "/evaluated", recursive=True)
    opened, at_source = [], type(fs).open

    def counted(self, place, *args, **given):
        opened.append(place)
        return at_source(self, place, *args, **given)

    monkeypatch.setattr(type(fs), "open", counted)
    cache = ShardCache(str(tmp_path / "cache"), limit_bytes=2**30)
    try:
        found = evaluate(*open_evaluation(equal, "memory://evaluated", "test", ONE, Feeding(cache=cache)))
    finally:
        fs.rm("/evaluated", recursive=True)
    assert found.heads == evaluate(*open_evaluation(equal, data, "test", ONE)).heads
    shards = sorted(place for place in opened if place.endswith(".arrow"))
    assert len(shards) == len(set(shards)) == 2 * 4  # clips, frames, flow and log-mel of two shards


def test_how_long_it_will_take_is_said_once_a_minute(equal, data, monkeypatch):
    monkeypatch.setattr("gblend.evaluation.PIECE_BYTES", 1)  # pieces of 16 and 8 clips, for both fused heads
    now = iter([0.0, 61.0, 100.0, 130.0, 150.0])
    monkeypatch.setattr("gblend.evaluation.time.monotonic", lambda: next(now))
    said = []
    evaluate(*open_evaluation(equal, data, "train", ONE), say=said.append)
    assert said == ["evaluate: 33% of train, about 2 min left", "evaluate: 83% of train, about 26 s left"]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_window_comes_once_and_workers_have_whole_clips(world):
    order = shared_order(range(4, 11), views=3, world=world)
    assert sorted(order) == list(range(12, 33))
    for rank in range(world):
        whole = [window // 3 for window in order[rank::world]][: 3 * (7 // world)]
        assert all(len(set(whole[at : at + 3])) == 1 for at in range(0, len(whole), 3))


def test_clips_that_lack_a_modality_follow_the_policy_of_the_run(data, tmp_path):
    run = train_on(data, tmp_path, "equal", replace(CONFIG, epochs=1, missing="drop"))
    found = evaluate(*open_evaluation(run, data, "test", Views(clips=2)))
    assert (found.clips, found.excluded_clips) == (5, 2)  # without sound, and of one frame, which has no flow
    assert {score.count for score in found.heads.values()} == {5}


def copied(run: str, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def test_an_older_run_is_scored_on_the_data_it_is_given(equal, data, tmp_path):
    run = copied(equal, tmp_path / "older")
    (run / "inputs.json").unlink()
    assert_its_own_scores(str(run), data)
    with pytest.raises(ValueError, match=r"before runs said what they read \(inputs.json\); name the data set"):
        load_trained(str(run))


def test_settings_that_a_run_lacks_have_their_defaults(equal, data, tmp_path):
    run = copied(equal, tmp_path / "older")
    settings = json.loads((run / "config.json").read_text())
    for section, name in (("input", "jitter_px"), ("input", "flip"), ("model", "lmf_rank")):
        settings[section].pop(name)
    (run / "config.json").write_text(json.dumps(settings))
    assert_its_own_scores(str(run), data)


def test_a_setting_that_is_not_known_is_named(equal, tmp_path):
    run = copied(equal, tmp_path / "newer")
    settings = json.loads((run / "config.json").read_text())
    settings["model"]["quantum"] = True
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"config.json was written by another version of gblend .*quantum"):
        load_trained(str(run))


def test_a_data_set_of_other_classes_is_refused(equal, tmp_path):
    other = write_noisy(tmp_path / "other", tasks=(Task(name="action", kind="single", classes=("a", "c", "b")),))
    with pytest.raises(ValueError, match="class 1 of task 'action' is 'c', the run was trained with 'b' there"):
        open_evaluation(equal, other, "test", ONE)


def test_a_checkpoint_of_another_network_is_refused(equal, tmp_path):
    run = copied(equal, tmp_path / "mixed")
    settings = json.loads((run / "config.json").read_text())
    settings["model"]["fused_hidden"] = 16
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"checkpoint.pt is not of the network that the run's settings make"):
        load_trained(str(run))


def test_an_ensemble_and_an_unfinished_run_are_refused(equal, tmp_path):
    run = copied(equal, tmp_path / "joined")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "method": "ensemble"}))
    with pytest.raises(ValueError, match="is an ensemble, which has no network"):
        load_trained(str(run))
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match=r"holds no result\.json; is it a run directory"):
        load_trained(str(run))
