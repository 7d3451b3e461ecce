import importlib.util
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from jobs import atari
from jobs.atari import AAC_HZ, ACTIONS, FPS, GAMES, SOUND_HZ, Recording, make_clips, plan_clips, play, play_episode

needs_ale = pytest.mark.skipif(
    importlib.util.find_spec("ale_py") is None, reason="ale-py (extra demo) is not installed"
)


@pytest.fixture
def forget_ale():
    atari._import_ale.cache_clear()
    yield
    atari._import_ale.cache_clear()


def flash_and_beep(*, at_frame: int) -> Recording:
    """Black and silent, then white and loud from the same moment on."""
    frames = np.zeros((60, 210, 160, 3), np.uint8)
    frames[at_frame:] = 255
    samples = np.zeros(60 * SOUND_HZ // FPS, np.int16)
    loud = np.arange(len(samples) - at_frame * SOUND_HZ // FPS)
    samples[at_frame * SOUND_HZ // FPS :] = 8000 * np.sign(np.cos(2 * np.pi * 440 * loud / SOUND_HZ))
    return Recording(frames=frames, samples=samples)


def decode(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture times, mean grey of each, and samples from time 0 at the file's rate."""
    with av.open(str(path)) as container:
        pictures = [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = list(container.decode(audio=0))
    assert sound[0].pts == 0
    times_s, greys = np.array(pictures).T
    return times_s, greys, np.concatenate([frame.to_ndarray()[0] for frame in sound])


def test_every_class_is_equally_frequent_in_every_game_split_and_episode():
    plans = plan_clips(clips_per_class={"train": 3, "val": 1, "test": 2}, seed=4)
    counts = Counter((plan.game, plan.split, plan.action) for plan in plans)
    assert len(counts) == len(GAMES) * 3 * len(ACTIONS)
    for (_, split, _), count in counts.items():
        assert count == {"train": 3, "val": 1, "test": 2}[split]
    assert set(Counter((plan.group, plan.action) for plan in plans).values()) == {1}
    assert len({plan.path for plan in plans}) == len(plans)


def test_no_seed_is_in_two_splits_two_games_or_two_plans():
    plans = [plan for seed in (0, 1) for plan in plan_clips(clips_per_class={"train": 3, "test": 2}, seed=seed)]
    owners = {(plan.seed, plan.game, plan.split) for plan in plans}
    assert len({seed for seed, _, _ in owners}) == len(owners) == 2 * len(GAMES) * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clips_per_class": {}}, "nothing to play"),
        ({"clips_per_class": {"train": 1}, "games": ["pong", "pong"]}, "games must differ"),
        ({"clips_per_class": {"train": 1}, "seed": -1}, "seed must be from 0"),
        ({"clips_per_class": {"train": 10**6}}, "up to 100,000 episodes"),
    ],
)
def test_a_plan_that_cannot_be_made_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_clips(**arguments)


def test_a_missing_emulator_is_one_clear_line(monkeypatch, forget_ale):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ValueError, match=r"ale-py is not installed; pip install 'gblend\[demo\]'"):
        next(play_episode("pong", seed=0))


@needs_ale
def test_an_unknown_game_is_an_error_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no game 'chess'; it has .*pong"):
        next(play_episode("chess", seed=0))


@needs_ale
def test_the_same_plan_played_twice_gives_the_same_frames_and_samples():
    plan = plan_clips(GAMES[:1], clips_per_class={"train": 1}, seed=3)[4]
    first, second = play(plan), play(plan)
    assert first.frames.shape[0] == 60
    assert first.samples.shape == (61_440,)
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.samples, second.samples)


@needs_ale
def test_the_place_in_the_episode_does_not_follow_the_class():
    orders = [[action for action, _ in play_episode(GAMES[0], seed=seed)] for seed in range(4)]
    assert all(sorted(order) == sorted(ACTIONS) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@needs_ale
def test_holding_fire_is_heard():
    rms = {"noop": [], "fire": []}
    for seed in range(4):
        for action, recording in play_episode("wizard_of_wor", seed=seed):
            if action in rms:
                samples = recording.samples.astype(float)
                rms[action].append(np.sqrt(np.mean((samples - samples.mean()) ** 2)))
    assert np.mean(rms["fire"]) > 1.3 * np.mean(rms["noop"])


@needs_ale
def test_a_clip_is_two_seconds_of_h264_and_aac(tmp_path):
    plans = plan_clips(GAMES[:1], clips_per_class={"train": 1}, seed=5)[:2]
    assert make_clips(plans, tmp_path) == 2
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == sorted(
        Path(plan.path).name for plan in plans
    )
    with av.open(str(tmp_path / plans[0].path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert audio.codec_context.sample_rate == AAC_HZ
        assert container.duration == pytest.approx(2e6, abs=1e5)
    times_s, _, samples = decode(tmp_path / plans[0].path)
    np.testing.assert_allclose(times_s, np.arange(60) / FPS)
    assert len(samples) == pytest.approx(2 * AAC_HZ, abs=2048)  # AAC comes in frames of 1,024


@pytest.mark.parametrize("at_frame", [0, 30])
def test_picture_and_sound_start_together(tmp_path, at_frame):
    atari.write_clip(flash_and_beep(at_frame=at_frame), tmp_path / "clip.mp4")
    times_s, greys, samples = decode(tmp_path / "clip.mp4")
    light_s = times_s[np.argmax(greys > 128)]
    sound_s = np.argmax(np.abs(samples) > 0.1) / AAC_HZ
    assert light_s == at_frame / FPS
    assert sound_s == pytest.approx(light_s, abs=0.002)


def test_annotations_list_each_clip_with_the_documented_columns(tmp_path):
    plans = plan_clips(["pong"], clips_per_class={"test": 1})
    rows = atari.write_annotations(plans, tmp_path / "annotations.csv").read_text().splitlines()
    assert rows[:2] == [
        "id,path,start,end,label,split,group",
        "pong-0-noop,test/pong-0-noop.mp4,0.0,2.0,noop,test,pong-0",
    ]
    assert len(rows) == 1 + len(plans)


@needs_ale
@pytest.mark.slow
def test_ray_makes_what_is_missing_and_keeps_the_rest(ray_session, tmp_path):
    plans = plan_clips(GAMES[:1], clips_per_class={"train": 2})
    make_clips(plans[:3], tmp_path)
    before = (tmp_path / plans[0].path).stat().st_mtime_ns
    seen = []
    result = atari.generate(plans, tmp_path, episodes_per_task=1, on_progress=lambda *counts: seen.append(counts))
    assert (result.made, result.kept) == (9, 3)
    assert seen[-1] == (12, 12)
    assert all((tmp_path / plan.path).stat().st_size > 1000 for plan in plans)
    assert (tmp_path / plans[0].path).stat().st_mtime_ns == before
