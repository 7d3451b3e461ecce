"""What a run says of its data set, and which other data sets it can be scored on."""

import json
from dataclasses import replace

import pytest

from gblend.run_inputs import RunInputs, require_fit
from schemas import DatasetInfo, FeatureSpec, FlowSpec, LogmelSpec, RgbSpec, Task, TensorSpec

ACTION = Task(name="action", kind="single", classes=("a", "b"))
EVENT = Task(name="event", kind="multi", classes=("x", "y", "z"))
POSE = TensorSpec(shape=(4, 2), mean=(0.0, 1.0), sd=(1.0, 2.0), sha256="one")
INFO = DatasetInfo(
    tasks=(ACTION, EVENT), features=FeatureSpec(), shards=(), counts={}, present={}, versions={}, columns={"pose": POSE}
)
RUN = RunInputs.of(INFO, ("rgb", "logmel", "pose"))


def test_what_is_written_is_read_back():
    assert RunInputs.from_json(json.loads(json.dumps(RUN.to_json())), what="inputs.json") == RUN


def test_a_document_that_lacks_something_is_named():
    values = {name: value for name, value in RUN.to_json().items() if name != "features"}
    with pytest.raises(ValueError, match=r"RUN/inputs\.json is not as this version writes it \(KeyError\('features'\)"):
        RunInputs.from_json(values, what="RUN/inputs.json")


def test_the_same_data_set_and_one_that_holds_more_fit():
    require_fit(INFO, RUN, data="DATA")
    more = replace(INFO, columns={"pose": replace(POSE, mean=(3.0, 3.0), sha256="two"), "text": POSE})
    require_fit(more, RUN, data="DATA")


def test_a_modality_that_the_run_does_not_read_may_be_another():
    require_fit(replace(INFO, features=FeatureSpec(flow=FlowSpec(bound_px=7.0))), RUN, data="DATA")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tasks": (ACTION,)},
            r"has the tasks action \(single\), the run was trained on action \(single\), event",
        ),
        ({"tasks": (replace(ACTION, classes=("a", "b", "c")), EVENT)}, "task 'action' has 3 classes, the run .* on 2"),
        ({"tasks": (replace(ACTION, classes=("b", "a")), EVENT)}, "class 0 of task 'action' is 'b', the run .* 'a'"),
        ({"features": FeatureSpec(rgb=RgbSpec(fps=8.0))}, r"other rgb .*\(rgb.fps: 8.0 there, 15.0 in the run\)"),
        ({"features": FeatureSpec(logmel=LogmelSpec(recipe="ast-128"))}, "other logmel .*logmel.mels: 128 there, 40"),
        ({"features": FeatureSpec(modalities=("rgb",))}, "has no modality 'logmel'; it holds rgb, pose"),
        ({"columns": {"pose": replace(POSE, shape=(5, 2))}}, r"pose is \[5, 2\], the run was trained on \[4, 2\]"),
        ({"columns": {}}, "has no modality 'pose'"),
    ],
)
def test_another_data_set_is_refused_in_a_line_that_says_where_it_differs(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        require_fit(replace(INFO, **changes), RUN, data="DATA")
    assert "\n" not in str(caught.value)
