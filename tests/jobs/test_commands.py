import shlex
from dataclasses import replace
from pathlib import Path

from gblend.config import TrainConfig
from gblend.runs import load_run
from jobs.cli import Flat, run
from jobs.commands import command_line, train_commands
from jobs.recipes import RECIPES, paper_r3d50
from tests.gblend.synthetic import result, write_run


def trained(folder: Path, method: str, seed: int, config: TrainConfig, **more):
    place = folder / f"{method.replace(':', '-')}-s{seed}"
    settings = {**config.to_json(), "method": method, "seed": seed, "data": "s3://b/my data", **more}
    write_run(place, result(method, seed, {"fused": 0.5}), config=settings)
    return load_run(str(place))


def test_the_command_of_runs_gives_their_configuration_methods_and_seeds_back(tmp_path):
    base = paper_r3d50()
    config = replace(
        base,
        epochs=3,
        modalities=("rgb", "logmel"),
        input=replace(base.input, jitter_px=(), scale_px=None, crop_px=96),
        optim=replace(base.optim, learning_rate=1.25e-5, milestones=(1, 2), warmup_epochs=0.0, clip_norm=2.0),
        blend=replace(base.blend, smoothing=0.25),
    )
    runs = [trained(tmp_path, method, seed, config) for method in ("naive", "equal") for seed in (0, 1)]
    (line,) = train_commands(runs)
    program, job, *arguments = shlex.split(line)
    seen = {}

    def compare(
        *, config: Flat[TrainConfig], data: str, out: str, methods: tuple[str, ...], seeds: tuple[int, ...]
    ) -> None:
        """As `jobs.compare`."""
        seen.update(config=config, data=data, out=out, methods=methods, seeds=seeds)

    assert (program, job) == ("gblend", "compare")
    assert run(compare, arguments, recipes=RECIPES) == 0
    assert seen == {
        "config": config,
        "data": "s3://b/my data",
        "out": "OUT",
        "methods": ("naive", "equal"),
        "seeds": (0, 1),
    }


def test_runs_of_another_number_of_workers_have_a_line_that_says_so(tmp_path):
    base = paper_r3d50()
    two, eight = trained(tmp_path, "naive", 0, base), trained(tmp_path, "naive", 1, base)
    more = replace(eight, result=replace(eight.result, workers=8))
    same = replace(two, result=replace(two.result, workers=2))
    lines = train_commands([same, more])
    assert [line.endswith(" --workers 8") for line in lines] == [False, True]
    assert "--workers" not in lines[0]


def test_runs_of_other_settings_have_a_line_of_their_own_and_of_other_recipes_none(tmp_path):
    base = paper_r3d50()
    runs = [
        trained(tmp_path, "naive", 0, base),
        trained(tmp_path, "equal", 0, replace(base, epochs=2)),
        trained(tmp_path, "equal", 1, replace(base, name="my-recipe")),
    ]
    first, second = train_commands(runs)
    assert "--methods naive --seeds 0" in first
    assert second.endswith("--methods equal --seeds 0 --epochs 2")


def test_the_command_that_is_running_is_named_without_how_it_was_to_speak(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/gblend", "train", "--quiet", "small-cpu", "--out", "a b", "--json"])
    assert command_line() == "gblend train small-cpu --out 'a b'"
