"""Methods: what each of them trains, for how long, and which finished runs it builds on.

    uni:<modality>   the branch of that modality's head                        N epochs
    naive            the branch of the fused head                              N
    dropout          naive with dropout .5 on the joined features              N
    early-stop       naive, the epoch that was best on V                       N
    pretrain         naive from the trunks of the single-modality runs         N + k N
    ogm-ge           naive, the encoder that is ahead slowed down              N        (Peng et al., CVPR 2022)
    equal            all heads, equal weights                                  N
    fixed            all heads, weights given by hand                          N
    uncertainty      all heads, weights learned with the network               N        (Kendall et al., CVPR 2018)
    tracked          all heads, weights from their own last super-epoch        N
    offline          all heads, weights from full-length probes                N + (k + 1) N   (Algorithm 2)
    online           all heads, weights from probes every super-epoch          N + (k + 1) N   (Algorithm 3)
    ensemble         nothing: the single-modality runs, their predictions joined    k N   (Du et al., ICML 2023)
    ensemble+naive   nothing: the same and the naive run                       (k + 1) N

Offline's probes, pretrain's trunks and the members of an ensemble are the uni-modal and naive runs of the same seed:
they are trained once and, in a comparison, appear as rows of their own. No run, whatever its method, trains on V. With
several tasks every branch has a head for each, and a branch trains all of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gblend.blend_config import ROBUST
from gblend.config import BlendConfig, TrainConfig
from gblend.heads import FUSED
from gblend.later import change_epochs, changes_of, check_later, config_at
from schemas import Task

FUSED_ONLY = ("naive", "dropout", "early-stop", "pretrain", "ogm-ge")
"""Methods that train the branch of the fused head."""

BLENDS = ("equal", "fixed", "uncertainty", "tracked", "offline", "online")
"""Methods that train all heads of the joint network."""

ENSEMBLES = ("ensemble", "ensemble+naive")
"""Methods that train nothing and join the predictions of finished runs."""

ESTIMATORS = ("tracked", "offline", "online")
"""Methods whose weights are estimated from O and G."""

PLAIN = BlendConfig()

DEFAULTS = {name: (getattr(PLAIN, name), ROBUST.get(name)) for name in BlendConfig.__dataclass_fields__}
"""Values that recipes have: nobody asked for them who runs a method that does not read them."""

ONE_TASK: Mapping[str, Task] = {}

READERS = {
    "fixed_weights": ("fixed",),
    "probes": ("online",),
    "staleness": ("online",),
    "probe_epochs": ("online",),
    "probe_fraction": ("online",),
    "reuse": ("online",),
    "smoothing": ("tracked", "online"),
    "measure": ESTIMATORS,
    "probe_end": ESTIMATORS,
    "generalization_discount": ESTIMATORS,
    "overfitting_floor": ESTIMATORS,
    "shrinkage": ESTIMATORS,
    "weight_cap": ESTIMATORS,
    "fused_floor": ESTIMATORS,
    "scale": ("equal", "uncertainty", *ESTIMATORS),
    "ogm_alpha": ("ogm-ge",),
}
"""Settings of ``blend`` that some methods read; where none of these runs, only values of `DEFAULTS` are taken."""

DROPOUT = 0.5
"""Of the method ``dropout``, unless the configuration has some already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """One run of one method."""

    method: str
    """A name of the table above."""
    seed: int
    """Decides initialisation, batches, windows and dropout."""

    @property
    def name(self) -> str:
        """Directory name.

        >>> RunSpec(method="uni:rgb", seed=3).name
        'uni-rgb-s3'
        """
        return f"{self.method.replace(':', '-').replace('+', '-')}-s{self.seed}"


def all_methods(modalities: Sequence[str]) -> tuple[str, ...]:
    """Every method there is for these modalities.

    >>> all_methods(("rgb", "logmel"))[:4]
    ('uni:rgb', 'uni:logmel', 'naive', 'dropout')
    """
    return (*(f"uni:{name}" for name in modalities), *FUSED_ONLY, *BLENDS, *ENSEMBLES)


def check_methods(
    methods: Sequence[str], modalities: tuple[str, ...], config: TrainConfig, tasks: Mapping[str, Task] = ONE_TASK
) -> None:
    """Raise ``ValueError`` unless all methods are defined for these modalities and some of them read what is set.

    Args:
        methods: Names.
        modalities: Of the joint network.
        config: Of all runs.
        tasks: By key (`gblend.heads`); none: one of a single label.
    """
    if len(modalities) < 2:
        raise ValueError(f"blending needs at least two modalities, this run has: {', '.join(modalities)}")
    allowed = all_methods(modalities)
    for method in methods:
        if method not in allowed:
            raise ValueError(f"unknown method {method!r}; allowed here: {', '.join(allowed)}")
    blend = config.blend
    blend.check_heads(len(modalities) + 1)
    for name, readers in READERS.items():
        value = getattr(blend, name)
        if value not in DEFAULTS[name] and not set(readers) & set(methods):
            raise ValueError(
                f"blend.{name} is read by {', '.join(readers)} only, not by {', '.join(methods)}; leave it out"
            )
    if "tracked" in methods and config.epochs <= blend.first_epochs:
        raise ValueError(
            f"method tracked needs an epoch after its first super-epoch, got {config.epochs} epochs and "
            f"blend.first_epochs {blend.first_epochs}; lower --blend.first-epochs, or train longer"
        )
    several = [task.name for task in tasks.values() if task.kind == "multi"]
    if "ogm-ge" in methods and several:
        raise ValueError(
            f"method ogm-ge compares modalities by the probability of the one right class, and a clip has several of "
            f"{several[0]}; leave it out"
        )
    check_later(config)
    for change in changes_of(config):
        readers = READERS.get(change.name.removeprefix("blend."), BLENDS)
        if not set(readers) & set(methods):
            raise ValueError(
                f"later changes {change.name}, which is read by {', '.join(readers)} only, not by "
                f"{', '.join(methods)}; leave it out"
            )
    if "fixed" in methods:
        for epoch in (0, *change_epochs(config)):
            _check_fixed(config_at(config, epoch).blend.fixed_weights, modalities, tasks)


def _check_fixed(given: Sequence[float], modalities: Sequence[str], tasks: Mapping[str, Task]) -> None:
    count, heads = max(1, len(tasks)), len(modalities) + 1
    by_task = [given[at : at + heads] for at in range(0, len(given), heads)]
    if len(given) != count * heads or min(given) < 0 or not all(map(any, by_task)):
        each = f", for {', then '.join(task.name for task in tasks.values())}" if count > 1 else ""
        zero = " of a task" if count > 1 else ""
        raise ValueError(
            f"method fixed needs blend.fixed_weights: one non-negative number for each of {', '.join(modalities)} and "
            f"the fused head{each}, not all 0{zero}; got {list(given)}"
        )


def needed_runs(run: RunSpec, modalities: Sequence[str], config: TrainConfig) -> dict[str, RunSpec]:
    """Runs that must be finished before this one, because it reads what they left: per head they train.

    >>> needed = needed_runs(RunSpec(method="offline", seed=0), ("rgb", "logmel"), TrainConfig(name="doc"))
    >>> {head: run.method for head, run in needed.items()}
    {'rgb': 'uni:rgb', 'logmel': 'uni:logmel', 'fused': 'naive'}
    """
    single = {name: RunSpec(method=f"uni:{name}", seed=run.seed) for name in modalities}
    if run.method in ("pretrain", "ensemble"):
        return single
    if run.method in ("offline", "ensemble+naive") or (run.method == "online" and config.blend.reuse == "offline"):
        return {**single, FUSED: RunSpec(method="naive", seed=run.seed)}
    return {}


def with_needed(runs: Sequence[RunSpec], modalities: Sequence[str], config: TrainConfig) -> list[RunSpec]:
    """The runs and those they need, each once, needed ones first."""
    ordered: dict[RunSpec, None] = {}
    for run in runs:
        for each in (*needed_runs(run, modalities, config).values(), run):
            ordered.setdefault(each)
    return list(ordered)


def config_of(method: str, config: TrainConfig) -> TrainConfig:
    """The configuration as a method trains it.

    >>> config_of("dropout", TrainConfig(name="doc")).model.fused_dropout
    0.5
    """
    if method == "dropout" and config.model.fused_dropout == 0.0:
        config = replace(config, model=replace(config.model, fused_dropout=DROPOUT))
    # What changes on the way does so in runs that blend: the full-length probes of an estimate stay what they were.
    return config if method in BLENDS else replace(config, later=())
