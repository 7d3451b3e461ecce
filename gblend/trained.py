"""The network of a finished run, read back to be asked about other clips.

A checkpoint holds parameters and buffers alone, read with ``weights_only``; ``config.json`` says which network they are
of, ``inputs.json`` what it reads, and ``result.json`` what was chosen on V: the best head, the shares of the stack.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from gblend.clips import resolve_modalities
from gblend.config import EncodersConfig, InputConfig, ModelConfig, TrainConfig
from gblend.heads import FUSED
from gblend.inputs import window_spec
from gblend.methods import BLENDS, ENSEMBLES, FUSED_ONLY, config_of
from gblend.model import BlendModel, make_model
from gblend.predictions import Choice, choice_of
from gblend.records import RunResult, read_json, read_object
from gblend.run_files import CHECKPOINT_FILE, CONFIG_FILE, INPUTS_FILE, REFIT_FILE, load_checkpoint
from gblend.run_inputs import RunInputs
from gblend.runs import load_run
from gblend.storage import exists
from schemas import DatasetInfo, FeatureSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A finished run and its network."""

    directory: str
    """Where it lies."""
    config: TrainConfig
    """What decides its network and its windows; settings of training are left at their defaults."""
    inputs: RunInputs
    """What it reads and is asked."""
    result: RunResult
    """What it came to, judged as it was then."""
    data: str
    """The data set that it was trained on."""
    model: BlendModel
    """In eval mode, on the CPU."""
    refitted: BlendModel | None
    """The branch of the fused head that was trained anew; None: none was."""

    @property
    def choices(self) -> dict[str, Choice]:
        """Per task key, what was chosen on V; empty for a network of one branch, which has no choice."""
        if self.result.predictions is None:
            return {}
        return {key: choice_of(self.result.predictions, self.model.branches, key) for key in self.inputs.by_key}

    @property
    def spec(self) -> FeatureSpec:
        """How the arrays of its windows are to be read (`gblend.inputs.window_spec`)."""
        return window_spec(self.inputs.features, self.config.input)

    def to(self, device: torch.device) -> None:
        """Move both networks there."""
        for model in (self.model, self.refitted):
            if model is not None:
                model.to(device)


def load_trained(directory: str, *, info: DatasetInfo | None = None) -> Trained:
    """Read a finished run and make its network.

    Args:
        directory: The run directory, a path or fsspec URL.
        info: The data set to ask, for an older run that does not say itself what it reads.

    Raises:
        ValueError: It is no finished run, an ensemble, of another version, or says nothing of its inputs.
    """
    directory = directory.rstrip("/")
    result = load_run(directory).result
    if result.method in ENSEMBLES:
        raise ValueError(
            f"{directory} is an {result.method}, which has no network; give the run of one of the networks it joins"
        )
    settings = read_object(f"{directory}/{CONFIG_FILE}")
    try:
        config = config_of(result.method, network_config(settings))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{directory}/{CONFIG_FILE} was written by another version of gblend ({error})") from error
    inputs = stored_inputs(directory)
    if inputs is None and info is not None:
        inputs = RunInputs.of(info, resolve_modalities(info, config.modalities))
    if inputs is None:
        raise ValueError(
            f"{directory} was written before runs said what they read ({INPUTS_FILE}); name the data set it was "
            "trained on with --data"
        )
    model = _network(config, inputs, result)
    _load(model, f"{directory}/{CHECKPOINT_FILE}")
    refitted = None
    if result.refit_epochs > 0:
        refitted = model.branch(FUSED)
        _load(refitted.heads[FUSED], f"{directory}/{REFIT_FILE}")
        refitted.eval()
    return Trained(
        directory=directory,
        config=config,
        inputs=inputs,
        result=result,
        data=str(settings.get("data", "")),
        model=model.eval(),
        refitted=refitted,
    )


def stored_inputs(directory: str) -> RunInputs | None:
    """``inputs.json`` of a run directory; None where there is none."""
    path = f"{directory}/{INPUTS_FILE}"
    return RunInputs.from_json(read_json(path), what=path) if exists(path) else None


def network_config(settings: Mapping[str, Any]) -> TrainConfig:
    """Of ``config.json``, what decides the network and what it sees. Pre-trained weights are not looked for: those of
    the checkpoint take their place.

    >>> network_config(TrainConfig(name="doc", epochs=3, missing="zero").to_json()).missing
    'zero'
    """
    values = _tuples(json.loads(json.dumps(settings)))
    model = dict(values["model"])
    encoders = EncodersConfig(**model.pop("encoders"))
    model = replace(ModelConfig(**model, encoders=encoders), visual_weights=None, audio_weights=None)
    return TrainConfig(
        name=values["name"],
        modalities=values["modalities"],
        missing=values["missing"],
        input=InputConfig(**values["input"]),
        model=model,
    )


def _network(config: TrainConfig, inputs: RunInputs, result: RunResult) -> BlendModel:
    """The network that the method of the run trained (`gblend.runner`), with parameters of no meaning."""
    classes = {key: len(task.classes) for key, task in inputs.by_key.items()}
    joint = make_model(inputs.modalities, classes, config.model, seed=0, shapes=inputs.shapes)
    if result.method in BLENDS:
        return joint
    return joint.branch(FUSED if result.method in FUSED_ONLY else result.method.removeprefix("uni:"))


def _load(module: torch.nn.Module, path: str) -> None:
    try:
        load_checkpoint(module, path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; train the run again") from None
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not of the network that the run's settings make: {first}") from error


def _tuples(value: Any) -> Any:
    """Lists as the tuples that settings hold."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value
