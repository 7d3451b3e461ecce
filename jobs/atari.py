"""Real picture and sound with a label and no download: short clips of Atari 2600 games, played by ale-py.

The label is the action that the player holds for the two seconds of the clip. One episode (one run of one game, one
seed, one `group`) holds each action once, in an order drawn from its seed, with random play of random length before
each. So labels are exactly balanced within every game, split and episode, and neither the game, the start of a clip
nor its place in the episode says anything about its label. Losing a life or the game inside a clip stays in it: a new
game starts at once, with the action still held, because cutting such moments out would select clips by their label.

The picture is the maximum of two successive 60 Hz frames, as usual on Atari, where sprites flicker at 30 Hz. ale-py is
GPL-2.0 and optional (`gblend[demo]`); its games are played from its own wheel and neither they nor clips are kept here.
"""

import csv
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import ray

ACTIONS = ("noop", "left", "right", "fire", "left-fire", "right-fire")
"""The labels, each the name of a joystick position without its hyphen."""

GAMES = ("demon_attack", "enduro", "wizard_of_wor")
"""Games chosen by measurement, of ten that use all six actions. Small networks trained for 15 epochs on 720 clips of
these three reach .51 (rgb), .40 (flow) and .44 (log-mel) on 360 unseen ones, where chance is .17: demon_attack is seen
best, wizard_of_wor heard best, and enduro both. The seeds were 5,000 to 5,059, which a plan of seed 0 does not reach
below 5,000 episodes."""

CLIP_S = 2.0
"""Length of a clip in seconds."""

FPS = 30
"""Pictures a second: half of the console's 60 Hz."""

SOUND_HZ = 30_720
"""The emulator's sample rate: 512 samples for each 60 Hz frame."""

AAC_HZ = 32_000
"""Sample rate in the file: the nearest one AAC has above the emulator's."""

_SILENCE = 128  # the emulator's samples are unsigned bytes
_WARM_UP_FRAMES = (180, 420)  # 60 Hz frames of random play before each clip, half-open
_HOLD_FRAMES = (4, 24)  # for so long random play keeps one action: single frames would only tremble on the spot
_SEEDS_PER_PLAN = 100_000  # the seeds of plan n start at n times this


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlan:
    """One clip to be made."""

    game: str
    """Name of the game as ale-py spells it, such as `demon_attack`."""

    action: str
    """The action held throughout the clip, one of `ACTIONS`: the label."""

    seed: int
    """Seed of the episode that the clip is part of; no two episodes of a plan share one."""

    split: str
    """Split that the whole episode belongs to."""

    path: str
    """Where the clip goes, relative to the root, always with `/`."""

    @property
    def group(self) -> str:
        """The episode's name: what must not straddle a hold-out."""
        return f"{self.game}-{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recording:
    """What the console showed and played during one clip."""

    frames: np.ndarray
    """uint8 [frame, height, width, rgb] at `FPS`."""

    samples: np.ndarray
    """int16 [sample], mono, at `SOUND_HZ`; sample 0 sounds when frame 0 appears."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """What a call of `generate` did."""

    annotations: Path
    """The CSV file that lists all planned clips."""

    made: int
    """Clips made by this call."""

    kept: int
    """Clips that were there already."""


def plan_clips(
    games: Sequence[str] = GAMES, *, clips_per_class: Mapping[str, int], seed: int = 0
) -> tuple[ClipPlan, ...]:
    """Lists the clips of `clips_per_class[split]` episodes of every game, each episode with every action once.

    `clips_per_class` counts clips for one class in one game. Two plans of different `seed` share no episode.

    >>> plans = plan_clips(["enduro", "demon_attack"], clips_per_class={"train": 2, "test": 1})
    >>> len(plans)  # 2 games x 6 actions x (2 + 1)
    36
    >>> plans[0].path, plans[0].action, plans[0].group
    ('train/enduro-0-noop.mp4', 'noop', 'enduro-0')
    >>> sorted({plan.seed for plan in plans if plan.split == "test"})
    [4, 5]
    """
    episodes = [(split, game) for split, count in clips_per_class.items() for game in games for _ in range(count)]
    if not episodes:
        raise ValueError(f"nothing to play: games {list(games)}, clips_per_class {dict(clips_per_class)}")
    if len(set(games)) != len(games):
        raise ValueError(f"games must differ, got {list(games)}")
    if len(episodes) > _SEEDS_PER_PLAN:
        raise ValueError(f"a plan holds up to {_SEEDS_PER_PLAN:,} episodes, got {len(episodes):,}")
    if not 0 <= seed < 2**31 // _SEEDS_PER_PLAN:  # the emulator takes 32 bits
        raise ValueError(f"seed must be from 0 to {2**31 // _SEEDS_PER_PLAN - 1}, got {seed}")
    return tuple(
        ClipPlan(game=game, action=action, seed=number, split=split, path=f"{split}/{game}-{number}-{action}.mp4")
        for number, (split, game) in enumerate(episodes, start=seed * _SEEDS_PER_PLAN)
        for action in ACTIONS
    )


def play(plan: ClipPlan) -> Recording:
    """Plays the plan's episode up to its clip: the same plan gives the same frames and samples."""
    return next(recording for action, recording in play_episode(plan.game, seed=plan.seed) if action == plan.action)


def play_episode(game: str, *, seed: int) -> Iterator[tuple[str, Recording]]:
    """Plays one episode and yields every action once with its recording, in an order drawn from the seed."""
    rng = np.random.default_rng(seed)
    console = _start_console(game, seed=seed)
    codes = [getattr(_import_ale().Action, action.replace("-", "").upper()) for action in ACTIONS]
    for turn in rng.permutation(len(ACTIONS)):
        for code in _random_play(rng, codes):
            _step(console, code)
        yield ACTIONS[turn], _record(console, codes[turn])


def write_clip(recording: Recording, path: Path) -> None:
    """Writes H.264 and AAC into an mp4 file, which appears under its name only when it is whole."""
    count, height, width, _ = recording.frames.shape
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(part), "w", format="mp4") as container:
        # A key frame each second keeps seeks short; one thread, because Ray gives each task one core.
        video: Any = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "20", "g": "30"})
        video.width, video.height, video.pix_fmt, video.thread_count = width, height, "yuv420p", 1
        audio: Any = container.add_stream("aac", rate=AAC_HZ, layout="mono", bit_rate=96_000)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(recording.frames[index], format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(recording.samples[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts = SOUND_HZ, 0
        container.mux(audio.encode(sound))  # resamples to AAC_HZ
        container.mux(audio.encode(None))
    part.replace(path)


def generate(
    plans: Sequence[ClipPlan],
    root: Path,
    *,
    episodes_per_task: int = 4,
    on_progress: Callable[[int, int], object] | None = None,
) -> Generated:
    """Makes the clips that `root` lacks, on all cores of the Ray cluster the caller has connected to.

    `on_progress(done, total)` is told of clips. On several machines `root` must be a folder that all of them share.
    """
    _import_ale()  # fail here, in one clear line, rather than in every task
    root = root.resolve()  # tasks run in another working directory
    missing: dict[str, list[ClipPlan]] = {}
    for plan in plans:
        if not (root / plan.path).exists():
            missing.setdefault(plan.group, []).append(plan)
    kept = done = len(plans) - sum(map(len, missing.values()))
    # num_cpus=1 also makes Ray set OMP_NUM_THREADS=1 in the worker.
    task = ray.remote(num_cpus=1)(make_clips)
    episodes = list(missing.values())
    starts = range(0, len(episodes), episodes_per_task)
    waiting = [task.remote(list(chain(*episodes[start : start + episodes_per_task])), root) for start in starts]
    while waiting:
        ready, waiting = ray.wait(waiting)
        done += sum(ray.get(ready))
        if on_progress is not None:
            on_progress(done, len(plans))
    annotations = write_annotations(plans, root / "annotations.csv")
    return Generated(annotations=annotations, made=done - kept, kept=kept)


def make_clips(plans: Sequence[ClipPlan], root: Path) -> int:
    """Plays and writes these clips, an episode at a time, and returns how many: one Ray task."""
    for game, seed in dict.fromkeys((plan.game, plan.seed) for plan in plans):
        paths = {plan.action: root / plan.path for plan in plans if (plan.game, plan.seed) == (game, seed)}
        for action, recording in play_episode(game, seed=seed):
            if action in paths:
                write_clip(recording, paths[action])
    return len(plans)


def write_annotations(plans: Sequence[ClipPlan], path: Path) -> Path:
    """Writes one row a clip, with paths relative to the file's folder and half-open spans in seconds."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "path", "start", "end", "label", "split", "group"])
        for plan in plans:
            rows.writerow([Path(plan.path).stem, plan.path, 0.0, CLIP_S, plan.action, plan.split, plan.group])
    part.replace(path)
    return path


@functools.cache
def _import_ale() -> ModuleType:
    try:
        import ale_py
    except ImportError as error:
        raise ValueError("ale-py is not installed; pip install 'gblend[demo]'") from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for every game
    return ale_py


def _start_console(game: str, *, seed: int) -> Any:
    """A console fresh from the box: resetting or restoring a used one would keep its sound chip's state."""
    _import_ale()
    from ale_py import ALEInterface, roms

    if game not in roms.get_all_rom_ids():  # ale-py ends the process on an unknown one
        raise ValueError(f"ale-py has no game {game!r}; it has {', '.join(sorted(roms.get_all_rom_ids()))}")
    console: Any = ALEInterface()
    console.setInt("random_seed", seed)
    console.setFloat("repeat_action_probability", 0.0)  # a held action is held
    console.setBool("sound_obs", True)
    console.loadROM(roms.get_rom_path(game))
    return console


def _random_play(rng: np.random.Generator, codes: Sequence[Any]) -> Iterator[Any]:
    """Actions for one warm-up, a 60 Hz frame each."""
    frames_left = int(rng.integers(*_WARM_UP_FRAMES))
    while frames_left > 0:
        hold_frames = min(frames_left, int(rng.integers(*_HOLD_FRAMES)))
        yield from [codes[int(rng.integers(len(codes)))]] * hold_frames
        frames_left -= hold_frames


def _record(console: Any, code: Any) -> Recording:
    frames, sound = [], []
    for _ in range(round(CLIP_S * FPS)):
        pair = []
        for _ in range(2):
            _step(console, code)
            pair.append(console.getScreenRGB())
            sound.append(console.getAudio().copy())
        frames.append(np.maximum(*pair))
    samples = (np.concatenate(sound).astype(np.int16) - _SILENCE) * 256
    return Recording(frames=np.stack(frames), samples=samples)


def _step(console: Any, code: Any) -> None:
    if console.game_over():
        console.reset_game()
    console.act(code)
