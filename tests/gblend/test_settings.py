import pytest

from gblend.config import TrainConfig
from gblend.settings import setting_names, setting_of, with_settings

CONFIG = TrainConfig(name="base")


def test_settings_of_several_parts_are_changed_together_and_the_rest_stays():
    changed = with_settings(CONFIG, {"epochs": 7, "blend.first_epochs": 3, "optim.name": "adamw"})
    assert (changed.epochs, changed.blend.first_epochs, changed.optim.name) == (7, 3, "adamw")
    differing = [name for name in setting_names(CONFIG) if setting_of(CONFIG, name) != setting_of(changed, name)]
    assert sorted(differing) == ["blend.first_epochs", "epochs", "optim.name"]


def test_settings_that_are_valid_only_together_are_checked_together():
    changed = with_settings(CONFIG, {"blend.fused_floor": 0.5, "blend.weight_cap": 0.6})
    assert (changed.blend.fused_floor, changed.blend.weight_cap) == (0.5, 0.6)
    with pytest.raises(ValueError, match=r"blend.fused_floor \(0.9\) must not be above blend.weight_cap \(0.6\)"):
        with_settings(CONFIG, {"blend.fused_floor": 0.9, "blend.weight_cap": 0.6})


def test_lists_as_a_document_has_them_become_the_tuples_of_a_configuration():
    assert with_settings(CONFIG, {"blend.fixed_weights": [0.2, 0.8]}).blend.fixed_weights == (0.2, 0.8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("blend.frist_epochs", r"there is no setting blend.frist_epochs; did you mean blend.first_epochs\?"),
        ("learning_rate", "there is no setting learning_rate"),
        ("blend", "there is no setting blend"),
        ("optim.name.x", "there is no setting optim.name.x"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(name, said):
    with pytest.raises(ValueError, match=said):
        with_settings(CONFIG, {name: 1})
    with pytest.raises(ValueError, match=said):
        setting_of(CONFIG, name)
