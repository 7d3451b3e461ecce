"""Log-mel spectrogram as a spec: a recipe is a name for numbers, and ``custom`` for numbers of one's own.

A formula decides window, triangles and logarithm (`pipelines.logmel` computes them); the numbers go into it. Every
recipe stores one frame for each hop in [0, duration) of the clip, so that one reader serves all.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from schemas.checks import require_number, require_one_of, require_whole

Formula = Literal["gblend", "vggish", "kaldi"]
Recipe = Literal["gblend-40", "vggish-64", "ast-128", "custom"]

CONSTANTS: dict[Formula, dict[str, float]] = {
    # About 32768 squared: samples count as 16-bit integers.
    "gblend": {"gain": 1.0807e9},
    "vggish": {},
    # The floor is float32's epsilon.
    "kaldi": {"preemphasis": 0.97, "floor": 2.0**-23},
}
"""What a formula fixes beside the numbers that can be chosen."""

STANDARD: dict[Formula, tuple[float, float]] = {
    # Silence is 0, audible sound lies between 15 and 25; measured on the demo's clips.
    "gblend": (16.0, 8.0),
    # VGGish itself takes its input as it is. Silence is -4.6, loud sound reaches 2.6; measured: 0.8 on speech in noise,
    # -3.4 on sample clips that are mostly silent.
    "vggish": (-1.5, 2.0),
    # (x + 4.2677) / (2 * 4.5690), as the code released with AST standardises AudioSet.
    "kaldi": (-4.2677, 2 * 4.5690),
}
"""Mean and standard deviation with which a reader standardises, by formula; they do not touch what is stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogmelNumbers:
    """The numbers of a log-mel spectrogram; the defaults are those of ``gblend-40``."""

    formula: Formula = "gblend"
    """``gblend``: power spectrum of a centred window, triangles of weight 1, gain 1.0807e9, then ln x above e and x / e
    below. ``vggish``: magnitude spectrum, ln(x + log_offset). ``kaldi``: the clip's mean removed, then in every frame
    its mean, pre-emphasis .97, symmetric Hann window, power spectrum, ln max(x, 2^-23)."""
    sample_rate_hz: int = 16_000
    """Audio is mixed to mono and resampled to this rate."""
    window_s: float = 0.016
    """Length of the Hann window."""
    hop_s: float = 0.010
    """Distance between frames, rounded to whole samples."""
    fft_samples: int | None = None
    """Length of the Fourier transform; none: the first power of two that holds the window."""
    mels: int = 40
    """Number of mel bands."""
    min_hz: float = 0.0
    """Where the lowest band begins."""
    max_hz: float = 8_000.0
    """Where the highest band ends."""
    log_offset: float = 0.01
    """Added before the logarithm, in the formula ``vggish``."""

    def __post_init__(self) -> None:
        require_one_of("logmel.custom.formula", self.formula, get_args(Formula))
        require_whole("logmel.custom.sample_rate_hz", self.sample_rate_hz, least=1000, most=384_000)
        for name, least in (("window_s", 2), ("hop_s", 1)):
            value = getattr(self, name)
            require_number(f"logmel.custom.{name}", value, most=1.0)
            if round(value * self.sample_rate_hz) < least:
                raise ValueError(
                    f"logmel.custom.{name} must be at least {least} samples at {self.sample_rate_hz} Hz, got {value}"
                )
        if self.fft_samples is not None:
            window = round(self.window_s * self.sample_rate_hz)
            require_whole("logmel.custom.fft_samples", self.fft_samples, least=window, most=2**20)
        require_whole("logmel.custom.mels", self.mels, least=1, most=1000)
        require_number("logmel.custom.max_hz", self.max_hz, most=self.sample_rate_hz / 2)
        if self.min_hz != 0.0:
            require_number("logmel.custom.min_hz", self.min_hz, most=self.sample_rate_hz / 2)
        if not self.min_hz < self.max_hz:
            raise ValueError(f"logmel.custom.min_hz must be below max_hz ({self.max_hz}), got {self.min_hz}")
        require_number("logmel.custom.log_offset", self.log_offset, most=1e6)
        if self.formula != "vggish" and self.log_offset != 0.01:
            raise ValueError(
                f"logmel.custom.log_offset is a number of the formula vggish, got {self.log_offset} with "
                f"{self.formula}; leave it out or set logmel.custom.formula to vggish"
            )


CUSTOM = LogmelNumbers()

RECIPES: dict[str, LogmelNumbers] = {
    "gblend-40": LogmelNumbers(fft_samples=256),
    "vggish-64": LogmelNumbers(
        formula="vggish", window_s=0.025, fft_samples=512, mels=64, min_hz=125.0, max_hz=7_500.0
    ),
    "ast-128": LogmelNumbers(formula="kaldi", window_s=0.025, fft_samples=512, mels=128, min_hz=20.0, max_hz=8_000.0),
}
"""The numbers behind the names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogmelSpec:
    """Log-mel spectrogram, natural logarithm, float16: one frame for each hop of the clip."""

    recipe: Recipe = "gblend-40"
    """``gblend-40``: the released code of the paper's authors; ``vggish-64`` and ``ast-128``: what these networks are
    trained on; ``custom``: the numbers given."""
    custom: LogmelNumbers = CUSTOM
    """The numbers of the recipe ``custom``."""

    def __post_init__(self) -> None:
        require_one_of("logmel.recipe", self.recipe, get_args(Recipe))
        if self.recipe != "custom":
            given = {name: value for name, value in asdict(self.custom).items() if value != getattr(CUSTOM, name)}
            if given:
                name, value = next(iter(given.items()))
                raise ValueError(
                    f"logmel.custom.{name} is a number of the recipe custom, got {value!r} with {self.recipe}, which "
                    f"has {getattr(RECIPES[self.recipe], name)!r}; set logmel.recipe to custom for other numbers"
                )

    @property
    def numbers(self) -> LogmelNumbers:
        """What the recipe stands for."""
        return self.custom if self.recipe == "custom" else RECIPES[self.recipe]

    @property
    def formula(self) -> Formula:
        """How the numbers are used."""
        return self.numbers.formula

    @property
    def sample_rate_hz(self) -> int:
        """Of the mono mix the frames are computed from."""
        return self.numbers.sample_rate_hz

    @property
    def mels(self) -> int:
        """Number of mel bands."""
        return self.numbers.mels

    @property
    def window_samples(self) -> int:
        """Window length in samples."""
        return round(self.numbers.window_s * self.sample_rate_hz)

    @property
    def hop_samples(self) -> int:
        """Hop in samples."""
        return round(self.numbers.hop_s * self.sample_rate_hz)

    @property
    def hop_s(self) -> float:
        """Distance between stored frames: the hop as computed, in whole samples.

        >>> LogmelSpec().hop_s
        0.01
        >>> LogmelSpec(recipe="custom", custom=LogmelNumbers(sample_rate_hz=22_050)).hop_s * 22_050
        220.0
        """
        return self.hop_samples / self.sample_rate_hz

    @property
    def fft_samples(self) -> int:
        """Length of the Fourier transform.

        >>> [LogmelSpec(recipe=name).fft_samples for name in ("gblend-40", "vggish-64", "ast-128")]
        [256, 512, 512]
        """
        return self.numbers.fft_samples or 2 ** math.ceil(math.log2(self.window_samples))

    @property
    def first_centre_s(self) -> float:
        """Where the window of frame 0 is centred: frame i's lies ``i * hop_s`` later.

        ``gblend`` centres frame i at the beginning of hop i; in the others its window begins there, as it does in the
        code these networks were trained with.
        """
        return 0.0 if self.formula == "gblend" else self.window_samples / self.sample_rate_hz / 2

    @property
    def silence(self) -> float:
        """What digital silence is stored as: of a frame without sound, and of any beyond the clip's ends.

        >>> [LogmelSpec(recipe=name).silence for name in ("gblend-40", "vggish-64", "ast-128")]
        [0.0, -4.60546875, -15.9453125]
        """
        exact = {
            "gblend": 0.0,
            "vggish": math.log(self.numbers.log_offset),
            "kaldi": math.log(CONSTANTS["kaldi"]["floor"]),
        }[self.formula]
        return struct.unpack("e", struct.pack("e", exact))[0]  # float16

    @property
    def mean(self) -> float:
        """With which a reader standardises."""
        return STANDARD[self.formula][0]

    @property
    def sd(self) -> float:
        """With which a reader standardises."""
        return STANDARD[self.formula][1]

    def to_json(self) -> dict[str, Any]:
        """The name and its numbers."""
        return {"recipe": self.recipe, **asdict(self.numbers)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LogmelSpec":
        """The inverse of `to_json`; a name that stood for other numbers is an error.

        >>> LogmelSpec.from_json(LogmelSpec(recipe="ast-128").to_json()).recipe
        'ast-128'
        """
        recipe, numbers = values["recipe"], LogmelNumbers(**{k: v for k, v in values.items() if k != "recipe"})
        spec = cls(recipe=recipe, custom=numbers) if recipe == "custom" else cls(recipe=recipe)
        if spec.numbers != numbers:
            raise ValueError(f"logmel.recipe {recipe} stood for other numbers when this was written: {numbers}")
        return spec

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "LogmelSpec":
        """A spec whose description this is.

        >>> LogmelSpec.from_description(LogmelSpec(recipe="vggish-64").describe()).recipe
        'vggish-64'
        """
        chosen = {"recipe", *(part.name for part in fields(LogmelNumbers))}
        return cls.from_json({name: value for name, value in described.items() if name in chosen})

    def describe(self) -> dict[str, Any]:
        """Everything the stored values depend on, and what a reader must know about them."""
        return {
            **self.to_json(),
            **CONSTANTS[self.formula],
            "fft_samples": self.fft_samples,
            "frames_per_s": self.sample_rate_hz / self.hop_samples,
            "first_centre_s": self.first_centre_s,
            "silence": self.silence,
        }
