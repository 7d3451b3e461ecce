import math

import pytest

from schemas.features import FeatureSpec, FlowSpec, LogmelSpec, RgbSpec

FIELDS = [
    (RgbSpec, "rgb", {"fps": [0.0, -1.0, math.inf, math.nan], "short_side_px": [15, 9000], "jpeg_quality": [0, 101]}),
    (RgbSpec, "rgb", {"fixed_size_px": [(48, 8)]}),
    (FlowSpec, "flow", {"stride": [0], "bound_px": [0.0, -1.0, math.inf, math.nan], "jpeg_quality": [0, 500]}),
    (LogmelSpec, "logmel", {"sample_rate_hz": [0], "window_s": [0.0, 1e-5, math.nan], "mels": [0, -1]}),
    (LogmelSpec, "logmel", {"hop_s": [0.0, -0.01, 1e-5, math.inf], "max_hz": [0.0, 8001.0, math.nan]}),
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
    custom = {"recipe": "custom"} if kind is LogmelSpec else {}
    with pytest.raises(ValueError, match=rf"^{prefix}\.{name} must be .*, got .*") as raised:
        kind(**custom | {name: value})
    shown = value if not isinstance(value, tuple) else next((side for side in value if side < 16), value)
    assert str(raised.value).endswith(f"got {shown!r}")


@pytest.mark.parametrize(("name", "value"), [("mels", 64), ("hop_s", 0.02), ("max_hz", 7_000.0), ("window_s", 0.032)])
def test_a_recipe_names_its_numbers(name, value):
    message = f"logmel.{name} must be {getattr(LogmelSpec(), name)} in the recipe gblend-40, got {value}; .* custom"
    with pytest.raises(ValueError, match=message):
        LogmelSpec(**{name: value})
    assert getattr(LogmelSpec(recipe="custom", **{name: value}), name) == value


def test_what_may_be_set_is_not_refused_and_read_back():
    spec = FeatureSpec(
        rgb=RgbSpec(fps=240.0, short_side_px=16, fixed_size_px=(16, 8192), codec="raw", jpeg_quality=1),
        flow=FlowSpec(preset="medium", stride=3, bound_px=0.5, codec="raw", jpeg_quality=100),
        logmel=LogmelSpec(recipe="custom", sample_rate_hz=48_000, window_s=0.025, mels=80, max_hz=24_000.0),
    )
    assert FeatureSpec.from_json(spec.to_json()) == spec


def test_the_fingerprints_of_the_defaults_have_not_changed():
    assert FeatureSpec().describe("logmel")["logmel"] == {
        "recipe": "gblend-40",
        "sample_rate_hz": 16_000,
        "window_s": 0.016,
        "hop_s": 0.01,
        "mels": 40,
        "max_hz": 8_000.0,
    }
