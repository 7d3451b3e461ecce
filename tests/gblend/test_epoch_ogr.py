import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from gblend.aggregate import LossCurve, loss_curves
from gblend.epoch_ogr import epoch_caption, epoch_figure, epoch_ratios
from gblend.ogr import LossPair, blend_weights
from gblend.records import EpochRecord
from gblend.runs import Run
from tests.gblend.synthetic import history, result, score


def curve(train: list[list[float]], heldout: list[list[float]]) -> LossCurve:
    return LossCurve(epochs=tuple(range(len(train[0]))), train=np.array(train), heldout=np.array(heldout))


def run(method: str, losses: dict[str, tuple[list[float], list[float]]], seed: int = 0) -> Run:
    """Per head its losses on T' and on V."""
    records = tuple(
        EpochRecord(
            epoch=epoch,
            train={head: score(0.5, train[epoch]) for head, (train, _) in losses.items()},
            heldout={head: score(0.5, heldout[epoch]) for head, (_, heldout) in losses.items()},
            weights={},
            learning_rate=0.1,
        )
        for epoch in range(len(next(iter(losses.values()))[0]))
    )
    scores = dict.fromkeys(losses, 0.5)
    return Run(name=f"{method}-{seed}", config={}, result=result(method, seed, scores), history=records, estimates=())


def marks(svg: str) -> tuple[int, int]:
    """How many are filled with the head's colour, and how many are open."""
    styles = [element.get("style") or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("use")]
    filled = sum("fill: var(--head-0" in style for style in styles)
    return filled, sum("fill: var(--paper" in style and "stroke: var(--head-0" in style for style in styles)


def test_every_epoch_has_the_ogr_that_the_weights_formula_would_measure_between_its_ends():
    (found,) = loss_curves([run("naive", {"fused": ([1.8, 1.1, 0.7, 0.5], [1.8, 1.3, 1.2, 1.35])})]).values()
    ratios = epoch_ratios(found)
    for step in range(3):
        ends = [
            LossPair(train=found.train[:, at].tolist(), valid=found.heldout[:, at].tolist()) for at in (step, step + 1)
        ]
        measured = blend_weights(*ends)
        assert ratios.ogr[step] == pytest.approx(measured.ogr[0])
        assert ratios.step_generalization[step] == pytest.approx(measured.generalization[0])


def test_seeds_are_averaged_before_the_division():
    # G is .4 and .0 (a ratio of infinity by itself), O .1 and .3: together .2 / .2.
    found = epoch_ratios(curve([[1.0, 0.5], [1.0, 0.7]], [[1.0, 0.6], [1.0, 1.0]]))
    assert found.ogr == pytest.approx([1.0])


def test_a_held_out_loss_that_stands_still_gives_an_infinite_ratio_and_two_that_do_none():
    found = epoch_ratios(curve([[1.0, 0.5, 0.5]], [[1.0, 1.0 + 1e-9, 1.0]]))
    assert found.ogr[0] == math.inf
    assert math.isnan(found.ogr[1])
    assert found.step_generalization.tolist() == [0.0, 0.0]


def test_a_loss_that_is_not_finite_spoils_only_the_epochs_beside_it():
    found = epoch_ratios(curve([[1.0, math.nan, 0.4, 0.3]], [[1.0, math.inf, 0.6, 0.55]]))
    assert np.isnan(found.ogr).tolist() == [True, True, False]
    assert found.ogr[2] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("heldout", "epoch"),
    [([1.0, 0.7, 0.5, 0.35], None), ([1.0, 0.7, 0.6, 0.55], 2), ([1.0, 0.7, 0.71, 0.5], 2), ([1.0, 1.1, 1.0, 0.5], 1)],
)
def test_the_costly_epoch_is_the_first_that_wins_no_more_than_it_overfits(heldout, epoch):
    assert epoch_ratios(curve([[1.0, 0.6, 0.3, 0.1]], [heldout])).costly_epoch == epoch


def test_a_method_has_an_ogr_panel_and_a_path_and_all_methods_share_the_scales():
    runs = [run(m, {"fused": ([1.8, 1.0, 0.5], [1.8, 1.4, high])}) for m, high in (("naive", 1.3), ("equal", 1.5))]
    panels = epoch_figure(runs).panels
    words = [[e.text for e in ET.fromstring(svg).iter() if e.tag.endswith("text") and e.text] for svg in panels]
    titles = [line for found in words for line in found if ":" in line]
    assert titles == [
        "naive: OGR per epoch",
        "naive: O against G",
        "equal: OGR per epoch",
        "equal: O against G",
    ]
    assert [w for w in words[0] if ":" not in w] == [w for w in words[2] if ":" not in w]
    assert [w for w in words[1] if ":" not in w] == [w for w in words[3] if ":" not in w]


def test_epochs_in_which_the_held_out_loss_did_not_fall_are_open_and_missing_ones_are_not_drawn():
    losses = ([1.8, 1.0, 0.5, 0.4, math.nan], [1.8, 1.4, 1.5, 1.5, math.nan])
    assert marks(epoch_figure([run("naive", {"fused": losses})]).panels[0]) == (1, 2)


def test_a_head_that_diverges_leaves_the_scale_of_the_path_to_the_others():
    wild = ([1.8, 0.5], [1.8, 900.0])
    calm, both = ({"rgb": ([1.8, 1.2], [1.8, 1.3])}, {"rgb": ([1.8, 1.2], [1.8, 1.3]), "fused": wild})

    def numbers(losses) -> list[float]:
        texts = [e.text or "" for e in ET.fromstring(epoch_figure([run("equal", losses)]).panels[1]).iter()]
        return [float(text.replace("−", "-")) for text in texts if text.strip("−0123456789.") == "" and text]

    assert max(numbers(both)) <= 4 * max(numbers(calm))


def test_the_caption_names_the_epoch_of_every_head_trained_alone():
    runs = [
        run("uni:rgb", {"rgb": ([1.0, 0.6, 0.3], [1.0, 0.7, 0.65])}),
        run("uni:logmel", {"logmel": ([1.0, 0.8, 0.6], [1.0, 0.85, 0.7])}),
        run("naive", {"fused": ([1.0, 0.5, 0.3], [1.0, 0.9, 0.85])}),
    ]
    caption = epoch_caption(runs)
    assert caption.endswith(
        "Trained alone (the fused head: naively), the OGR of rgb first reaches 1 in epoch 2; "
        "that of logmel stays below 1 in all 2 epochs; the OGR of fused first reaches 1 in epoch 1."
    )


def test_without_two_measured_epochs_there_is_no_panel_and_a_reason():
    untrained = Run(
        name="naive",
        config={},
        result=result("naive", 0, {"fused": 0.5}),
        history=history(("fused",), {}, epochs=0),
        estimates=(),
    )
    for runs in ([untrained], [Run(name="a", config={}, result=untrained.result, history=(), estimates=())]):
        figure = epoch_figure(runs)
        assert figure.panels == ()
        assert "two epochs" in figure.missing
        assert epoch_caption(runs)
