"""``inputs.json`` of a run directory: what its network reads, and what it is asked about it.

A data set that is to be scored must have the same tasks and the same features, or the numbers would mean nothing; a
video that is to be predicted is made into these features. Runs of before this file was written have none.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gblend.clips import resolve_modalities
from gblend.heads import by_key
from schemas import DatasetInfo, FeatureSpec, Task, TensorSpec
from schemas.task import tasks_from_json


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInputs:
    """What a run's data set said of every clip that it read."""

    tasks: tuple[Task, ...]
    """Questions and their classes."""
    modalities: tuple[str, ...]
    """Of the joint network, in the order of its heads."""
    features: FeatureSpec
    """How the modalities that come from a video were computed; it may hold more than the run reads."""
    columns: Mapping[str, TensorSpec]
    """Modalities of the user's own among them, standardised by the training clips of this data set."""

    @classmethod
    def of(cls, info: DatasetInfo, modalities: tuple[str, ...]) -> "RunInputs":
        """Those of a run on a data set."""
        columns = {name: spec for name, spec in info.columns.items() if name in modalities}
        return cls(tasks=info.tasks, modalities=modalities, features=info.features, columns=columns)

    @property
    def by_key(self) -> dict[str, Task]:
        """Tasks by key (`gblend.heads`)."""
        return by_key(self.tasks)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Per modality of the user's own, the shape of a clip's input, the channels first."""
        return {name: (spec.channels, *spec.shape[:-1]) for name, spec in self.columns.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by `from_json`."""
        return {
            "tasks": [{**asdict(task), "classes": list(task.classes)} for task in self.tasks],
            "modalities": list(self.modalities),
            "features": self.features.without_places().to_json(),
            "columns": {name: spec.to_json() for name, spec in self.columns.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, what: str) -> "RunInputs":
        """The inverse of `to_json`; ``what`` names the file in the error."""
        try:
            return cls(
                tasks=tasks_from_json(values["tasks"], what=what),
                modalities=tuple(values["modalities"]),
                features=FeatureSpec.from_json(values["features"]),
                columns={name: TensorSpec.from_json(spec) for name, spec in values["columns"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{what} is not as this version writes it ({error!r}); train the run again") from None


def require_fit(there: DatasetInfo, run: RunInputs, *, data: str) -> None:
    """Raise ``ValueError`` unless a data set asks what the run was trained on, about the same features.

    What it holds beyond the run's modalities does not matter. A user's own column must have the same shape; its values
    are standardised as the run's were.
    """
    _require_tasks(there.tasks, run.tasks, data)
    resolve_modalities(there, run.modalities)
    for name in run.modalities:
        if name in run.columns:
            if name not in there.columns or there.columns[name].shape != run.columns[name].shape:
                found = list(there.columns[name].shape) if name in there.columns else "another kind"
                raise ValueError(f"{data}: {name} is {found}, the run was trained on {list(run.columns[name].shape)}")
            continue
        changes = _changes(there.features.describe(name), run.features.describe(name))  # pyright: ignore[reportArgumentType]
        if changes:
            raise ValueError(
                f"{data} holds other {name} than the run was trained on ({'; '.join(changes)}); preprocess it with the "
                "run's settings, which are in its inputs.json"
            )


def _require_tasks(there: tuple[Task, ...], run: tuple[Task, ...], data: str) -> None:
    def names(tasks: tuple[Task, ...]) -> str:
        return ", ".join(f"{task.name} ({task.kind})" for task in tasks)

    if [(task.name, task.kind) for task in there] != [(task.name, task.kind) for task in run]:
        raise ValueError(
            f"{data} has the tasks {names(there)}, the run was trained on {names(run)}; give a data set of the same "
            "tasks, in this order"
        )
    for found, known in zip(there, run, strict=True):
        if len(found.classes) != len(known.classes):
            raise ValueError(
                f"{data}: task {found.name!r} has {len(found.classes)} classes, the run was trained on "
                f"{len(known.classes)}; make its manifest with the classes in the run's inputs.json"
            )
        for number, (one, other) in enumerate(zip(found.classes, known.classes, strict=True)):
            if one != other:
                raise ValueError(
                    f"{data}: class {number} of task {found.name!r} is {one!r}, the run was trained with {other!r} "
                    "there; make its manifest with the classes in the run's inputs.json, in their order"
                )


def _changes(there: Any, run: Any, name: str = "") -> list[str]:
    """Where two descriptions differ, deep down.

    >>> _changes({"rgb": {"fps": 15.0, "codec": "raw"}}, {"rgb": {"fps": 10.0, "codec": "raw"}})
    ['rgb.fps: 15.0 there, 10.0 in the run']
    """
    if isinstance(there, dict) and isinstance(run, dict):
        keys = sorted({*there, *run})
        return [line for key in keys for line in _changes(there.get(key), run.get(key), f"{name}.{key}".lstrip("."))]
    return [] if there == run else [f"{name}: {there} there, {run} in the run"]
