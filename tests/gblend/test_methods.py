"""Which methods there are, what they read, and in which order their runs come."""

import pytest

from gblend.config import BlendConfig, ModelConfig
from gblend.methods import RunSpec, all_methods, check_methods, config_of, needed_runs, with_needed
from jobs.recipes import RECIPES
from tests.gblend.tiny import MODALITIES, tiny_config

PAIR = ("rgb", "logmel")


@pytest.mark.parametrize("method", ["uni:audio", "bogus"])
def test_an_unknown_method_names_the_allowed_ones(method):
    with pytest.raises(ValueError, match=rf"unknown method '{method}'; allowed here: uni:rgb, uni:logmel, naive, "):
        check_methods(["naive", method], PAIR, tiny_config())


def test_fixed_weights_must_fit_the_heads():
    config = tiny_config(blend=BlendConfig(fixed_weights=(0.5, 0.5)))
    with pytest.raises(ValueError, match=r"one non-negative number for each of rgb, flow, logmel and the fused head"):
        check_methods(["fixed"], MODALITIES, config)


@pytest.mark.parametrize(
    ("setting", "reader"),
    [
        ({"fixed_weights": (0.2, 0.3, 0.5)}, "fixed"),
        ({"probe_epochs": 2}, "online"),
        ({"probe_fraction": 0.5}, "online"),
        ({"probes": "sequential"}, "online"),
        ({"reuse": "offline"}, "online"),
        ({"ogm_alpha": 0.9}, "ogm-ge"),
        ({"smoothing": 0.5}, "tracked"),
        ({"measure": "accuracy"}, "offline"),
        ({"shrinkage": 0.5}, "tracked"),
    ],
)
def test_a_setting_that_no_method_of_the_comparison_reads_is_refused(setting, reader):
    config = tiny_config(blend=BlendConfig(first_epochs=2, **setting))
    (name,) = setting
    with pytest.raises(ValueError, match=rf"blend\.{name} is read by .*{reader}.* only, not by naive, equal; leave"):
        check_methods(["naive", "equal"], PAIR, config)
    check_methods(["naive", reader], PAIR, config)


def test_tracked_without_an_epoch_to_apply_its_weights_to_is_refused():
    config = tiny_config(epochs=2, blend=BlendConfig(first_epochs=2))
    with pytest.raises(ValueError, match=r"tracked needs an epoch after its first super-epoch, got 2 epochs and .* 2"):
        check_methods(["tracked"], PAIR, config)


def test_every_method_is_accepted_for_the_modalities_it_is_listed_for():
    check_methods(
        all_methods(PAIR), PAIR, tiny_config(blend=BlendConfig(first_epochs=2, fixed_weights=(0.2, 0.3, 0.5)))
    )


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("method", [name for name in all_methods(MODALITIES) if name not in ("fixed", "tracked")])
def test_every_recipe_can_run_every_method_by_itself(recipe, method):
    check_methods([method], MODALITIES, RECIPES[recipe]())


def test_one_modality_cannot_be_blended():
    with pytest.raises(ValueError, match="at least two modalities, this run has: rgb"):
        check_methods(["naive"], ("rgb",), tiny_config())


def test_needed_runs_come_before_the_run_that_reads_them_and_only_once():
    wanted = [RunSpec(method=m, seed=0) for m in ("offline", "naive", "uni:rgb", "pretrain")]
    runs = with_needed(wanted, PAIR, tiny_config())
    assert [run.method for run in runs] == ["uni:rgb", "uni:logmel", "naive", "offline", "pretrain"]


@pytest.mark.parametrize(("reuse", "needed"), [("none", []), ("offline", ["uni:rgb", "uni:logmel", "naive"])])
def test_online_needs_the_full_length_probes_only_when_it_reuses_them(reuse, needed):
    config = tiny_config(blend=BlendConfig(reuse=reuse))
    found = needed_runs(RunSpec(method="online", seed=3), PAIR, config)
    assert list(found.values()) == [RunSpec(method=method, seed=3) for method in needed]


@pytest.mark.parametrize(("given", "used"), [(0.0, 0.5), (0.3, 0.3)])
def test_the_dropout_baseline_drops_half_unless_the_configuration_says_how_much(given, used):
    config = tiny_config(model=ModelConfig(fused_dropout=given))
    assert config_of("dropout", config).model.fused_dropout == used
    assert config_of("naive", config) == config
