"""The cost that is predicted is the cost that is found, in branch-epochs and in time."""

from dataclasses import replace
from itertools import pairwise

import pytest

from gblend import runner
from gblend.config import BlendConfig
from gblend.cost import Pace, branch_epochs, duration
from gblend.methods import RunSpec
from gblend.records import read_json
from gblend.runner import Runner
from tests.gblend.stops import stop_before
from tests.gblend.tiny import tiny_config, tiny_data

BLEND = BlendConfig(first_epochs=2, next_epochs=1, refit_epochs=1)
STEP_S = 40.0
"""Of the whole network: two of them are long enough for a line."""

OF_A_RUN = 3 * 3
"""Steps of three epochs of 18 clips."""


def lines_of(place, monkeypatch, method: str = "online", step=None, **blend) -> tuple[list[tuple[float, str]], float]:
    """What a run says, and steps of the whole network done by then, on a clock that nothing but steps moves."""
    done, lines = [0.0], []

    class Steady(Pace):
        def count(self, steps: float) -> bool:
            done[0] += steps
            return super().count(steps)

    monkeypatch.setattr(runner, "Pace", lambda **given: Steady(**given, clock=lambda: STEP_S * done[0]))
    data = replace(tiny_data(train=18), modalities=("rgb", "logmel"), probe_part=list(range(12)))
    carried = Runner(
        data=data,
        config=tiny_config(blend=replace(BLEND, **blend)),
        data_path="memory",
        say=lambda line: lines.append((done[0], line)),
        step=None if step is None else lambda share, where: step(done[0], share, where),
    )
    carried.run(RunSpec(method=method, seed=0), str(place))
    return lines, done[0]


def assert_right(lines: list[tuple[float, str]], total: float) -> None:
    """Every line but one before a second step says how long the rest then took."""
    said = [(done, line) for done, line in lines if line.endswith("left") and "an unknown time" not in line]
    assert len(said) > 3
    for done, line in said:
        assert line.endswith(f", about {duration(STEP_S * (total - done))} left"), (done, line)


@pytest.mark.parametrize("probes", ["shared", "sequential"])
def test_the_time_left_is_what_steps_take_that_are_left(tmp_path, monkeypatch, probes):
    lines, total = lines_of(tmp_path, monkeypatch, probes=probes)
    assert total == pytest.approx(OF_A_RUN + 2 * 3 * 2 + 3 / 3)  # two steps an epoch of probes, three of the refit
    assert_right(lines, total)


@pytest.mark.parametrize("probes", ["shared", "sequential"])
def test_the_share_that_is_done_is_told_in_place_of_lines(tmp_path, monkeypatch, probes):
    told: list[tuple[float, float, str]] = []
    lines, total = lines_of(tmp_path, monkeypatch, step=lambda *step: told.append(step), probes=probes)
    assert not [line for _, line in lines if line.endswith("left")]
    assert [share for _, share, _ in told] == pytest.approx([done / total for done, _, _ in told])
    assert len(told) > OF_A_RUN
    assert told[-1][1] == pytest.approx(1.0)
    assert told[-1][2].startswith("online seed 0: 3 of 3 epochs, new fused head")


@pytest.mark.parametrize(
    ("first", "reuse", "epochs"), [(1, "none", 2), (1, "offline", 2), (3, "none", 3), (3, "offline", 0)]
)
def test_probes_of_an_older_checkpoint_are_predicted_where_they_train(first, reuse, epochs):
    """Super-epochs of 1, 1 and 1 epochs, of which the last starts no probes; or a single one of 3."""
    blend = BlendConfig(first_epochs=first, next_epochs=1, staleness=1, reuse=reuse)
    assert branch_epochs("online", tiny_config(blend=blend), modalities=2) == 3 + 3 * epochs


def test_with_an_older_checkpoint_the_time_left_is_right_as_well(tmp_path, monkeypatch):
    lines, total = lines_of(tmp_path, monkeypatch, first_epochs=1, staleness=1)
    assert total == pytest.approx(OF_A_RUN + 2 * 2 * 2 + 3 / 3)
    assert_right(lines, total)
    assert read_json(str(tmp_path / "result.json"))["branch_epochs"] == pytest.approx(3 + 3 * 2 * 12 / 18)


def test_lines_come_now_and_then_and_say_where_the_run_is(tmp_path, monkeypatch):
    lines, _ = lines_of(tmp_path, monkeypatch, method="equal")
    moments = [done for done, line in lines]
    assert moments[0] == 2
    assert all(STEP_S * (b - a) >= 60 for a, b in pairwise(moments))
    assert lines[1][1] == "equal seed 0: 1 of 3 epochs and 1 step (3 an epoch), about 4 min left"


def test_what_an_estimate_will_cost_is_said_before_it_begins(tmp_path, monkeypatch):
    lines, _ = lines_of(tmp_path, monkeypatch)
    announced = [(done, line) for done, line in lines if "for weights" in line]
    # Three branches on two thirds of the clips: before the first step, and after four steps of probes and six.
    first = "epochs 1 to 2 for weights: 3 branches, 4 branch-epochs, an unknown time"
    second = "epochs 3 to 3 for weights: 3 branches, 2 branch-epochs, about 3 min"
    assert announced == [
        (0.0, f"online seed 0: probes {first}"),
        (14.0, f"online seed 0: probes {second}"),
    ]


def test_a_run_that_goes_on_counts_what_is_left_alone(tmp_path, monkeypatch):
    stop_before(lambda: lines_of(tmp_path, monkeypatch), "epochs: step", times=4)
    lines, total = lines_of(tmp_path, monkeypatch)
    assert total == pytest.approx(6 + 2 * 2 + 1)  # two epochs, the probes of one and the refit
    assert "goes on: 1 of 3 epochs" in lines[0][1]
    assert_right(lines, total)
