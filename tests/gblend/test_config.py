"""Settings that make no sense are refused by name, value and what would be allowed."""

import json
from dataclasses import asdict, replace

import pytest

from gblend.blend_config import PAPER, ROBUST
from gblend.config import (
    BlendConfig,
    ComputeConfig,
    EncodersConfig,
    InputConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from gblend.resnet import stage_blocks
from jobs.cli import Flat, run
from jobs.recipes import RECIPES

NAN = float("nan")


def train_config(**changes) -> TrainConfig:
    return TrainConfig(name="test", **changes)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (InputConfig, {"frames": 0}, "input.frames must be at least 1, got 0"),
        (train_config, {"micro_batches": 0}, "micro_batches must be at least 1, got 0"),
        (OptimConfig, {"clip_norm": 0.0}, "optim.clip_norm must be positive, got 0"),
        (InputConfig, {"frame_step": 0}, "input.frame_step must be at least 1, got 0"),
        (InputConfig, {"crop_px": -4}, "input.crop_px must be at least 1, got -4"),
        (InputConfig, {"mel_frames": 0}, "input.mel_frames must be at least 1, got 0"),
        (InputConfig, {"scale_px": 30, "crop_px": 40}, r"scale_px \(30\) must not be below input.crop_px \(40\)"),
        (InputConfig, {"jitter_px": (48, 36)}, r"input.jitter_px must be at least input.crop_px \(40\), got 36"),
        (InputConfig, {"time_masks": (2, 0)}, r"input.time_masks must be .* at least 1, or 0 0, got \(2, 0\)"),
        (InputConfig, {"band_masks": (0, 3)}, r"input.band_masks must be .* at least 1, or 0 0, got \(0, 3\)"),
        (InputConfig, {"time_masks": (1, 101)}, r"time_masks \(101\) must not be wider than input.mel_frames \(100\)"),
        (ModelConfig, {"visual_layers": (0,)}, r"model.visual_layers must be at least one block in .*, got \[0\]"),
        (ModelConfig, {"audio_layers": (1, 0)}, r"model.audio_layers must be .*, got \[1, 0\]"),
        (ModelConfig, {"visual_width": 0}, "model.visual_width must be at least 1, got 0"),
        (ModelConfig, {"audio_width": 0}, "model.audio_width must be at least 1, got 0"),
        (ModelConfig, {"fused_hidden": 0}, "model.fused_hidden must be at least 1, got 0"),
        (ModelConfig, {"mid_stages": 0}, "model.mid_stages must be at least 1, got 0"),
        (ModelConfig, {"se_reduction": 0}, "model.se_reduction must be at least 1, got 0"),
        (ModelConfig, {"nl_reduction": 0}, "model.nl_reduction must be at least 1, got 0"),
        (ModelConfig, {"lmf_rank": 0}, "model.lmf_rank must be at least 1, got 0"),
        (
            ModelConfig,
            {"audio_stem": "authors", "audio_width": 6},
            r"model.audio_width must be a multiple of 4 .*got 6",
        ),
        (ModelConfig, {"r2plus1d_middle": "block"}, "basic blocks of r2plus1d, .*; got the basic blocks of r3d"),
        (
            ModelConfig,
            {"r2plus1d_middle": "block", "visual_block": "r2plus1d", "visual_depth": 50},
            "got the bottleneck blocks of r2plus1d",
        ),
        (
            ModelConfig,
            {"visual_depth": 50, "visual_layers": (1, 1, 1)},
            r"model.visual_depth \(50\) and model.visual_layers \(\[1, 1, 1\]\) both say how many blocks",
        ),
        (
            ModelConfig,
            {"audio_depth": 18, "audio_layers": (2,)},
            r"model.audio_depth \(18\) and .* --model.audio-l",
        ),
        (EncodersConfig, {"rgb": "networks"}, "model.encoders.rgb must be module:callable, got 'networks'"),
        (EncodersConfig, {"flow": ":make"}, "model.encoders.flow must be module:callable, got ':make'"),
        (EncodersConfig, {"other": {"imu": "a:"}}, "model.encoders.imu must be module:callable, got 'a:'"),
        (EncodersConfig, {"other": {"rgb": "a:b"}}, "none of rgb, flow, logmel, fused; got 'rgb'"),
        (EncodersConfig, {"other": {"fused": "a:b"}}, "none of rgb, flow, logmel, fused; got 'fused'"),
        (EncodersConfig, {"other": {"my.imu": "a:b"}}, "letters, digits and underscores .* got 'my.imu'"),
        (ModelConfig, {"fused_dropout": 1.0}, r"model.fused_dropout must be in \[0, 1\), got 1.0"),
        (OptimConfig, {"learning_rate": 0.0}, "optim.learning_rate must be positive, got 0.0"),
        (OptimConfig, {"learning_rate": NAN}, "optim.learning_rate must be positive, got nan"),
        (OptimConfig, {"momentum": 1.0}, r"optim.momentum must be in \[0, 1\), got 1.0"),
        (OptimConfig, {"weight_decay": -0.1}, "optim.weight_decay must be at least 0, got -0.1"),
        (OptimConfig, {"milestones": (-1,)}, r"optim.milestones must be at least 0, got \[-1\]"),
        (OptimConfig, {"warmup_epochs": -1.0}, "optim.warmup_epochs must be at least 0, got -1.0"),
        (BlendConfig, {"holdout_share": 0.5}, r"blend.holdout_share must be in \(0, 0.5\), got 0.5"),
        (BlendConfig, {"holdout_share": 0.0}, r"blend.holdout_share must be in \(0, 0.5\), got 0.0"),
        (BlendConfig, {"holdout_seed": -1}, "blend.holdout_seed must be at least 0, got -1"),
        (BlendConfig, {"first_epochs": 0}, "blend.first_epochs must be at least 1, got 0"),
        (BlendConfig, {"next_epochs": 0}, "blend.next_epochs must be at least 1, got 0"),
        (BlendConfig, {"fixed_weights": (1.0, -0.5)}, r"blend.fixed_weights must be finite and not .*\[1.0, -0.5\]"),
        (BlendConfig, {"fixed_weights": (NAN,)}, r"blend.fixed_weights must be finite and not negative, got \[nan\]"),
        (BlendConfig, {"probe_epochs": -1}, "blend.probe_epochs must be at least 0, got -1"),
        (BlendConfig, {"probe_fraction": 0.0}, r"blend.probe_fraction must be in \(0, 1\], got 0.0"),
        (BlendConfig, {"probe_fraction": 1.5}, r"blend.probe_fraction must be in \(0, 1\], got 1.5"),
        (BlendConfig, {"refit_epochs": -1}, "blend.refit_epochs must be at least 0, got -1"),
        (BlendConfig, {"ogm_alpha": 0.0}, "blend.ogm_alpha must be positive, got 0.0"),
        (LossConfig, {"label_smoothing": 1.0}, r"loss.label_smoothing must be in \[0, 1\), got 1.0"),
        (LossConfig, {"class_weights": ()}, r"loss.class_weights must be a positive number for every class, got \[\]"),
        (LossConfig, {"class_weights": (1.0, 0.0)}, r"loss.class_weights must be a positive number .*\[1.0, 0.0\]"),
        (BlendConfig, {"shrinkage": 1.1}, r"blend.shrinkage must be in \[0, 1\], or noise, got 1.1"),
        (BlendConfig, {"shrinkage": NAN}, r"blend.shrinkage must be in \[0, 1\], or noise, got nan"),
        (BlendConfig, {"smoothing": 1.0}, r"blend.smoothing must be in \[0, 1\), got 1.0"),
        (BlendConfig, {"weight_cap": 0.0}, r"blend.weight_cap must be in \(0, 1\], got 0.0"),
        (BlendConfig, {"fused_floor": 1.0}, r"blend.fused_floor must be in \[0, 1\), got 1.0"),
        (
            BlendConfig,
            {"fused_floor": 0.5, "weight_cap": 0.4},
            r"blend.fused_floor \(0.5\) must not be above blend.weight_cap \(0.4\); lower the floor or raise the cap",
        ),
        (train_config, {"epochs": 0}, "epochs must be at least 1, got 0"),
        (train_config, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (ComputeConfig, {"workers": 0}, "workers must be at least 1, got 0"),
        (ComputeConfig, {"gpus_per_worker": -1.0}, "gpus_per_worker must be 0, 1, or with one worker a part of 1"),
        (ComputeConfig, {"gpus_per_worker": 2.0}, "one worker on each.*, got 2.0"),
        (ComputeConfig, {"gpus_per_worker": 0.5, "workers": 2}, "one worker on each.*, got 0.5"),
        (ComputeConfig, {"cpus_per_worker": 0.0}, "cpus_per_worker must be positive, got 0.0"),
        (ComputeConfig, {"restarts": -1}, "restarts must be at least 0, got -1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_what_is_allowed(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (InputConfig, {"mel_alignment": "near"}, "input.mel_alignment must be one of stretch, exact, got 'near'"),
        (InputConfig, {"flip": "vertical"}, "input.flip must be one of none, horizontal, got 'vertical'"),
        (ModelConfig, {"visual_block": "r4d"}, "model.visual_block must be one of r3d, r2plus1d, .*, got 'r4d'"),
        (ModelConfig, {"visual_depth": 20}, "model.visual_depth must be one of 18, 34, 50, 101, 152, got 20"),
        (ModelConfig, {"audio_depth": 34}, "model.audio_depth must be one of 18, 50, 101, 152, got 34"),
        (
            ModelConfig,
            {"visual_residual": "wide"},
            "model.visual_residual must be one of basic, bottleneck,",
        ),
        (ModelConfig, {"audio_stem": "big"}, "model.audio_stem must be one of small, authors, imagenet, got 'big'"),
        (
            ModelConfig,
            {"fusion": "early"},
            "model.fusion must be one of concat, mid, se-gate, nl-gate, lmf, got 'early'",
        ),
        (OptimConfig, {"name": "lion"}, "optim.name must be one of sgd, adamw, adam, adagrad, got 'lion'"),
        (OptimConfig, {"schedule": "linear"}, "optim.schedule must be one of constant, cosine, step, got 'linear'"),
        (BlendConfig, {"overfitting_floor": "se"}, "blend.overfitting_floor must be one of none, standard-error"),
        (BlendConfig, {"probes": "both"}, "blend.probes must be one of shared, sequential, spread, got 'both'"),
        (BlendConfig, {"reuse": "online"}, "blend.reuse must be one of none, offline, got 'online'"),
        (LossConfig, {"class_weights": "even"}, "loss.class_weights must be equal, balanced or numbers, got 'even'"),
        (BlendConfig, {"measure": "error"}, "blend.measure must be one of loss, accuracy, got 'error'"),
        (BlendConfig, {"probe_end": "best"}, "blend.probe_end must be one of last, best-v, got 'best'"),
        (
            BlendConfig,
            {"generalization_discount": "se"},
            "blend.generalization_discount must be one of none, standard-",
        ),
        (BlendConfig, {"scale": "k"}, "blend.scale must be one of one, heads, got 'k'"),
        (train_config, {"missing": "skip"}, "missing must be one of drop, zero, got 'skip'"),
        (train_config, {"modalities": ("audio",)}, "modalities must be rgb, flow, logmel, or a name that `gblend"),
    ],
)
def test_a_misspelt_choice_is_refused_with_the_choices(make, changes, message):
    """Set from outside, because under test the annotations are checked before the configuration sees the value."""
    config = make()
    for name, value in changes.items():
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError, match=message):
        config.__post_init__()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_valid_and_called_by_its_name(name):
    assert RECIPES[name]().name == name


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_json_form_survives_a_round_trip_through_a_file(name):
    values = RECIPES[name]().to_json()
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_the_rules_of_the_paper_are_what_a_blend_has_unless_told_otherwise():
    default = asdict(BlendConfig())
    assert {name: default[name] for name in PAPER} == PAPER
    assert ROBUST.keys() == PAPER.keys()


@pytest.mark.parametrize(
    ("recipe", "rules", "way"),
    [("small-cpu", ROBUST, "stack"), ("demo", ROBUST, "stack"), ("paper-r3d50", PAPER, "fused")],
)
def test_recipes_are_robust_or_the_papers(recipe, rules, way):
    config = RECIPES[recipe]()
    assert {name: value for name, value in asdict(config.blend).items() if name in rules} == rules
    assert config.predict_by == way


def test_configurations_cannot_be_changed():
    with pytest.raises(AttributeError):
        train_config().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize("given", [{"schedule": "step"}, {"schedule": "cosine", "milestones": (3,)}])
def test_milestones_that_would_be_ignored_or_missed_are_refused(given):
    with pytest.raises(ValueError, match=r"optim\.milestones are the drops of schedule step, and of no other; got"):
        OptimConfig(**given)


@pytest.mark.parametrize("name", ["adamw", "adam", "adagrad"])
def test_momentum_is_refused_by_optimisers_that_would_ignore_it(name):
    with pytest.raises(
        ValueError, match=rf"optim.momentum \(0.5\) is a setting of sgd, and {name} would ignore it; leave"
    ):
        OptimConfig(name=name, momentum=0.5)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("name", ["sgd", "adamw", "adam", "adagrad"])
def test_every_recipe_takes_every_optimiser(recipe, name):
    optim = RECIPES[recipe]().optim
    assert replace(optim, name=name).name == name


def test_the_lowest_cap_is_one_over_the_number_of_heads():
    BlendConfig(weight_cap=1 / 3).check_heads(3)
    with pytest.raises(ValueError, match=r"blend.weight_cap \(0.33\) must be at least 1 / 3 for 3 heads"):
        BlendConfig(weight_cap=0.33).check_heads(3)


def test_networks_are_chosen_by_flags():
    seen = []

    def job(*, config: Flat[TrainConfig]) -> None:
        """Take a configuration.

        Args:
            config: Experiment.
        """
        seen.append(config.model)

    flags = "--model.encoders.rgb mine:make --model.encoders.other imu mine:imu --model.visual-block ip_csn"
    more = "--model.visual-depth 152 --model.fusion lmf --model.audio-weights resnet18.pth"
    assert run(job, ["small-cpu", *flags.split(), *more.split()], recipes=RECIPES) == 0
    assert seen[0].encoders.places() == {"rgb": "mine:make", "imu": "mine:imu"}
    assert (seen[0].visual_block, seen[0].visual_depth, seen[0].visual_layers) == ("ip_csn", 152, ())
    assert stage_blocks(seen[0].visual_depth, seen[0].visual_layers) == (3, 8, 36, 3)
    assert (seen[0].fusion, seen[0].audio_weights, seen[0].visual_weights) == ("lmf", "resnet18.pth", None)
