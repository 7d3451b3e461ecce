"""What Ray Train leaves to us: a worker that is lost as its group begins, and Ctrl-C."""

import os
import signal
import time
import weakref

import pytest
import ray.train
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.torch import TorchTrainer

from gblend.group import _Unwatched, fitted, own_interrupts
from gblend.lines import LOST, Lines


class Said(Lines):
    """Lines that are kept."""

    def __init__(self) -> None:
        object.__setattr__(self, "said", [])

    def put(self, line: str) -> None:
        self.said.append(line)


def failing(*errors: Exception):
    """A group that ends with these, one after another, and then well; and how often it has been started."""
    waiting, starts = list(errors), []

    def fit(restarts: int) -> None:
        starts.append(restarts)
        if waiting:
            raise waiting.pop(0)

    return fit, starts


def lost() -> Exception:
    """As it comes from the controller's process."""
    return RayTaskError("run", "", ray.train.ControllerError(ActorDiedError())).as_instanceof_cause()


def test_a_group_begins_again_when_a_worker_is_lost_at_its_start_and_that_is_said():
    (fit, starts), lines = failing(lost(), lost()), Said()
    fitted(fit, restarts=2, lines=lines)
    assert starts == [2, 1, 0]
    assert lines.said == ["a worker failed: its process was lost: killed, out of memory, or with its node", LOST] * 2


@pytest.mark.parametrize("restarts", [0, 1])
def test_it_begins_again_only_so_often(restarts):
    fit, starts = failing(lost(), lost())
    with pytest.raises(RuntimeError):
        fitted(fit, restarts=restarts, lines=Said())
    assert len(starts) == restarts + 1


@pytest.mark.parametrize(
    "error", [ray.train.ControllerError(ValueError("a mistake")), ray.train.WorkerGroupError("it fails", {})]
)
def test_what_is_no_loss_or_was_tried_again_before_is_an_error_at_once(error):
    fit, starts = failing(error)
    with pytest.raises(RuntimeError, match=r"a mistake|it fails"):
        fitted(fit, restarts=3, lines=Said())
    assert len(starts) == 1


def test_an_error_does_not_keep_alive_what_the_attempt_held():
    class Controller:
        pass

    held: list[weakref.ref] = []

    def fit(_: int) -> None:
        controller = Controller()
        held.append(weakref.ref(controller))
        raise ray.train.WorkerGroupError("it fails", {})

    with pytest.raises(RuntimeError, match="it fails") as raised:
        fitted(fit, restarts=0, lines=Said())
    assert raised.value.__cause__ is not None
    assert held[0]() is None


def test_ctrl_c_is_an_interruption_though_ray_train_ends_as_if_all_went_well_and_works_again_afterwards():
    def ended_by_ray(*_: object) -> None:
        raise SystemExit(0)

    def fit() -> None:
        with own_interrupts():
            signal.signal(signal.SIGINT, ended_by_ray)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)  # ended by the signal

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_process_that_watches_a_controller_is_rays_default_and_the_only_thing_a_search_leaves_out():
    def callbacks(trainer: type[TorchTrainer]) -> list[str]:
        made = trainer(lambda _: None, scaling_config=ray.train.ScalingConfig(num_workers=1))
        return [type(each).__name__ for each in made._create_default_callbacks()]

    every, ours = callbacks(TorchTrainer), callbacks(_Unwatched)
    assert [name for name in every if name not in ours] == ["PlacementGroupCleanerCallback"]
    assert [name for name in every if name in ours] == ours
