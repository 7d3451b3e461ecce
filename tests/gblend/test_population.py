import pytest

from gblend.candidate import Candidate
from gblend.later import changes_of
from gblend.population import Member, generation_ends, moved_on, takeovers
from tests.gblend.tiny import tiny_config


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7, 10, 12, 45])
def test_generations_are_at_most_five_and_end_with_the_training(epochs):
    ends = generation_ends(epochs)
    assert ends == sorted(set(ends))
    assert ends[-1] == epochs
    assert len(ends) <= 5


def test_the_worst_quarter_takes_over_from_the_best_quarter_and_nobody_from_itself():
    values = {number: number / 10 for number in range(8)}
    seen = set()
    for generation in range(30):
        found = takeovers(values, seed=3, generation=generation)
        assert list(found) == [0, 1]
        assert set(found.values()) <= {6, 7}
        seen |= set(found.values())
        assert takeovers(values, seed=3, generation=generation) == found
    assert seen == {6, 7}


@pytest.mark.parametrize(("members", "taking"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (9, 3)])
def test_at_most_half_of_a_population_takes_over(members, taking):
    assert len(takeovers(dict.fromkeys(range(members), 0.5), seed=0, generation=0)) == taking


def space(draw) -> Candidate:
    first = draw.integer("blend.first_epochs", 1, 3)
    return Candidate(
        method="online",
        settings={
            "blend.first_epochs": first,
            "blend.smoothing": draw.choice("blend.smoothing", (0.0, 0.3, 0.6)),
            "optim.learning_rate": draw.real("optim.learning_rate", 0.01, 0.1, scale="log"),
        },
    )


START = {"blend.first_epochs": 2, "blend.smoothing": 0.3, "optim.learning_rate": 0.05}


def test_what_decides_the_networks_and_epochs_stays_and_the_rest_moves_from_what_is_in_force():
    found = []
    for number in range(20):
        one = Member(point=START, candidate=Candidate(method="online", settings=dict(START)))
        one = moved_on(space, one, tiny_config(epochs=9), epoch=2, seed=(0, 0, number))
        two = moved_on(space, one, tiny_config(epochs=9), epoch=4, seed=(0, 1, number))
        assert {name: two.candidate.settings[name] for name in START} == START
        assert two.point["blend.first_epochs"] == 2
        changes = changes_of(two.candidate.config(tiny_config(epochs=9)))
        last = {change.name: change.value for change in changes}
        assert {name: last.get(name, START[name]) for name in START} == two.point
        assert {change.epoch for change in changes} <= {2, 4}
        found.append(two.point["optim.learning_rate"])
    assert len(set(found)) > 5
    assert all(0.01 <= rate <= 0.1 for rate in found)


def test_weights_that_are_drawn_one_by_one_change_together():
    def weights(draw) -> Candidate:
        drawn = [draw.real(f"weight.{head}", 0.02, 1.0, scale="log") for head in ("rgb", "logmel", "fused")]
        return Candidate(method="fixed", settings={"blend.fixed_weights": tuple(each / sum(drawn) for each in drawn)})

    point = {"weight.rgb": 0.2, "weight.logmel": 0.2, "weight.fused": 0.1}
    start = Member(point=point, candidate=Candidate(method="fixed", settings={"blend.fixed_weights": (0.4, 0.4, 0.2)}))
    moved = moved_on(weights, start, tiny_config(epochs=9), epoch=3, seed=(0, 0, 1))
    (change,) = changes_of(moved.candidate.config(tiny_config(epochs=9)))
    assert (change.epoch, change.name) == (3, "blend.fixed_weights")
    assert sum(change.value) == pytest.approx(1.0)
    assert change.value == pytest.approx([value / sum(moved.point.values()) for value in moved.point.values()])
