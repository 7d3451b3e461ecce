import json
import math

import pytest

import schemas.logmel
from schemas.features import FeatureSpec, RgbSpec
from schemas.flow import FlowSpec
from schemas.logmel import RECIPES, LogmelNumbers, LogmelSpec

FIELDS = [
    (RgbSpec, "rgb", {"fps": [0.0, -1.0, math.inf, math.nan], "short_side_px": [15, 9000], "jpeg_quality": [0, 101]}),
    (RgbSpec, "rgb", {"fixed_size_px": [(48, 8)]}),
    (FlowSpec, "flow", {"stride": [0], "bound_px": [0.0, -1.0, math.inf, math.nan], "jpeg_quality": [0, 500]}),
    (LogmelNumbers, "logmel.custom", {"sample_rate_hz": [0], "window_s": [0.0, 1e-5, math.nan], "mels": [0, -1]}),
    (LogmelNumbers, "logmel.custom", {"hop_s": [0.0, -0.01, 1e-5, math.inf], "max_hz": [0.0, 8001.0, math.nan]}),
    (LogmelNumbers, "logmel.custom", {"fft_samples": [0, 255], "min_hz": [-1.0, 8_000.0, math.nan]}),
    (LogmelNumbers, "logmel.custom", {"log_offset": [0.0, -0.1, math.nan]}),
]


@pytest.mark.parametrize(
    ("kind", "prefix", "name", "value"),
    [
        (kind, prefix, name, value)
        for kind, prefix, wrong in FIELDS
        for name, values in wrong.items()
        for value in values
    ],
)
def test_a_wrong_number_is_an_error_that_names_field_and_value(kind, prefix, name, value):
    with pytest.raises(ValueError, match=rf"^{prefix}\.{name} must be .*, got .*") as raised:
        kind(**{name: value})
    shown = value if not isinstance(value, tuple) else next((side for side in value if side < 16), value)
    assert str(raised.value).endswith(f"got {shown!r}")


@pytest.mark.parametrize(("name", "value"), [("mels", 80), ("hop_s", 0.02), ("max_hz", 7_000.0), ("formula", "kaldi")])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_names_its_numbers(recipe, name, value):
    numbers = LogmelNumbers(**{name: value})
    message = rf"^logmel\.custom\.{name} is a number of the recipe custom, got {value!r} with {recipe}.* to custom"
    with pytest.raises(ValueError, match=message):
        LogmelSpec(recipe=recipe, custom=numbers)
    assert getattr(LogmelSpec(recipe="custom", custom=numbers).numbers, name) == value


def test_an_offset_is_a_number_of_one_formula():
    with pytest.raises(ValueError, match=r"log_offset is a number of the formula vggish, got 0\.1 with gblend"):
        LogmelNumbers(log_offset=0.1)
    assert LogmelSpec(recipe="custom", custom=LogmelNumbers(formula="vggish", log_offset=1.0)).silence == 0.0


@pytest.mark.parametrize(
    ("algorithm", "option", "owner"),
    [
        ("tvl1", {"preset": "medium"}, "dis"),
        ("raft", {"preset": "ultrafast"}, "dis"),
        ("dis", {"raft_model": "large"}, "raft"),
        ("farneback", {"raft_weights": "w.pth"}, "raft"),
        ("dis", {"raft_weights_sha256": 64 * "0"}, "raft"),
    ],
)
def test_an_option_of_another_algorithm_is_an_error(algorithm, option, owner):
    (name,) = option
    with pytest.raises(ValueError, match=rf"^flow\.{name} is an option of the algorithm {owner}, got .* {algorithm};"):
        FlowSpec(algorithm=algorithm, **option)


@pytest.mark.parametrize("wrong", ["abc", 64 * "g", 64 * "A"])
def test_a_checksum_is_hexadecimal(wrong):
    with pytest.raises(ValueError, match=r"flow\.raft_weights_sha256 must be 64 lower-case hexadecimal digits"):
        FlowSpec(algorithm="raft", raft_weights_sha256=wrong)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_metadata_of_a_recipe_say_what_a_reader_needs(recipe):
    described = FeatureSpec(logmel=LogmelSpec(recipe=recipe)).describe("logmel")["logmel"]
    assert described["recipe"] == recipe
    assert described["frames_per_s"] == 100.0
    assert described["sample_rate_hz"] == 16_000
    expected = {
        "gblend-40": (40, 256, 0.0, 0.0),
        "vggish-64": (64, 512, 0.0125, -4.605),
        "ast-128": (128, 512, 0.0125, -15.94),
    }
    assert [described[k] for k in ("mels", "fft_samples", "first_centre_s")] == list(expected[recipe][:3])
    assert described["silence"] == pytest.approx(expected[recipe][3], abs=0.01)


def test_how_a_reader_standardises_is_not_part_of_what_is_stored(monkeypatch):
    before = FeatureSpec().fingerprint("logmel")
    monkeypatch.setitem(schemas.logmel.STANDARD, "gblend", (0.0, 1.0))
    assert FeatureSpec().fingerprint("logmel") == before


def test_numbers_that_a_recipe_no_longer_has_are_an_error():
    written = FeatureSpec(logmel=LogmelSpec(recipe="ast-128")).to_json()
    written["logmel"]["mels"] = 127
    with pytest.raises(ValueError, match=r"logmel\.recipe ast-128 stood for other numbers"):
        FeatureSpec.from_json(written)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("algorithm", ["dis", "farneback", "tvl1", "raft"])
def test_every_choice_is_read_back_as_it_was_written(recipe, algorithm):
    spec = FeatureSpec(flow=FlowSpec(algorithm=algorithm), logmel=LogmelSpec(recipe=recipe))
    assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "flow",
    [
        FlowSpec(preset="medium"),
        FlowSpec(algorithm="tvl1", stride=2),
        FlowSpec(algorithm="raft", raft_model="large", raft_weights_sha256=64 * "a"),
    ],
)
def test_a_flow_is_known_from_its_description(flow):
    spec = FeatureSpec(flow=flow)
    assert FlowSpec.from_description(spec.describe("flow")["flow"]) == flow


@pytest.mark.parametrize("recipe", [*RECIPES, "custom"])
def test_a_log_mel_is_known_from_its_description(recipe):
    spec = FeatureSpec(logmel=LogmelSpec(recipe=recipe))
    described = spec.describe("logmel")["logmel"]
    known = LogmelSpec.from_description(described)
    assert known.recipe == recipe
    assert FeatureSpec(logmel=known).describe("logmel")["logmel"] == described


def test_what_may_be_set_is_not_refused_and_read_back():
    spec = FeatureSpec(
        rgb=RgbSpec(fps=240.0, short_side_px=16, fixed_size_px=(16, 8192), codec="raw", jpeg_quality=1),
        flow=FlowSpec(preset="medium", stride=3, bound_px=0.5, codec="raw", jpeg_quality=100),
        logmel=LogmelSpec(
            recipe="custom",
            custom=LogmelNumbers(sample_rate_hz=48_000, window_s=0.025, fft_samples=1200, mels=80, max_hz=24_000.0),
        ),
    )
    assert FeatureSpec.from_json(spec.to_json()) == spec


def test_the_descriptions_of_the_defaults_have_not_changed():
    assert FeatureSpec().describe("logmel")["logmel"] == {
        "recipe": "gblend-40",
        "formula": "gblend",
        "sample_rate_hz": 16_000,
        "window_s": 0.016,
        "hop_s": 0.01,
        "fft_samples": 256,
        "mels": 40,
        "min_hz": 0.0,
        "max_hz": 8_000.0,
        "log_offset": 0.01,
        "gain": 1.0807e9,
        "frames_per_s": 100.0,
        "first_centre_s": 0.0,
        "silence": 0.0,
    }
    flow = FeatureSpec().describe("flow")["flow"]
    named = {"algorithm": "dis", "preset": "fast", "stride": 1, "bound_px": 20.0, "codec": "jpeg", "jpeg_quality": 95}
    assert {name: flow[name] for name in named} == named
    assert set(flow) == {*named, "parameters", "unit", "level", "image"}
