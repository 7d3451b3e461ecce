"""Log-mel spectrograms: three formulas, whose numbers are the recipe's (`schemas.logmel`).

``gblend`` is the paper's released code: power spectrum of a periodic Hann window centred at ``i * hop``, triangles
straight in Hz on mel = 1127 ln(1 + f / 700) with each band's weights summing to 1, a gain of 1.0807e9, then ln x above
e and x / e below, which is continuous and never negative. (The paper leaves open whether its triangles are straight in
Hz or in mel.) ``vggish`` and ``kaldi`` take windows that begin at ``i * hop``, and triangles straight in mel. VGGish
takes the magnitude spectrum and ln(x + offset); Kaldi, as AST calls it, does first what `_kaldi_frames` says, takes the
power spectrum and ln max(x, floor).

Every formula gives one frame for each hop in [0, duration); beyond the clip's ends lie zeros. At 16 kHz with gblend-40
129 bins lie 62.5 Hz apart: the lowest band (0 to 91 Hz) holds a single bin, the next ones two. None may be empty, which
is checked; Kaldi's may, since its floor says what an empty band is, and one of AST's 128 is.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torchaudio
from jaxtyping import Float16, Float32
from torch import Tensor

from pipelines.spans import stored_count
from schemas.logmel import CONSTANTS, LogmelSpec

FRAMES_AT_ONCE = 6000
"""A minute at 100 frames a second: windows overlap, and an hour of them would take gigabytes."""


def logmel(
    samples: Float32[np.ndarray, " sample"], *, duration_s: float, spec: LogmelSpec
) -> Float16[np.ndarray, "frame mel"]:
    """Log-mel of a whole clip: one frame for each hop in [0, duration_s).

    >>> logmel(np.zeros(16_000, np.float32), duration_s=1.0, spec=LogmelSpec()).shape
    (100, 40)
    >>> logmel(np.zeros(16_000, np.float32), duration_s=1.0, spec=LogmelSpec(recipe="ast-128")).shape
    (100, 128)
    """
    formulas: dict[str, Callable[[Tensor, int, LogmelSpec], Tensor]] = {
        "gblend": _gblend,
        "vggish": _vggish,
        "kaldi": _kaldi,
    }
    frames = stored_count(duration_s, spec.sample_rate_hz / spec.hop_samples)
    with torch.inference_mode():
        values = formulas[spec.formula](torch.from_numpy(samples), frames, spec)
    return values.numpy().astype(np.float16)


def _gblend(samples: Tensor, frames: int, spec: LogmelSpec) -> Tensor:
    # Sound for the window of the last frame, however the length was rounded.
    padded = _padded(samples, frames * spec.hop_samples)
    energy = (_centred_power(spec)(padded)[:, :frames].T @ _triangles_in_hz(spec)) * CONSTANTS["gblend"]["gain"]
    return torch.where(energy > np.e, energy.clamp_min(np.e).log(), energy / np.e)


def _vggish(samples: Tensor, frames: int, spec: LogmelSpec) -> Tensor:
    window, triangles = torch.hann_window(spec.window_samples), _triangles_in_mel(spec)

    def values(windows: Tensor) -> Tensor:
        magnitude = _power(windows * window, spec).sqrt_()
        return (magnitude @ triangles + spec.numbers.log_offset).log()

    return _by_windows(values, samples, frames, spec)


def _kaldi(samples: Tensor, frames: int, spec: LogmelSpec) -> Tensor:
    triangles = _triangles_in_mel(spec)

    def values(windows: Tensor) -> Tensor:
        power = _power(_kaldi_frames(windows), spec)
        return (power @ triangles).clamp_min(CONSTANTS["kaldi"]["floor"]).log()

    # AST's reader takes the mean off the whole clip before Kaldi takes it off every frame.
    return _by_windows(values, samples - samples.mean(), frames, spec)


def _kaldi_frames(windows: Tensor) -> Tensor:
    """Mean removed, pre-emphasised against the sample before (the first against itself), symmetric Hann window."""
    windows = windows - windows.mean(dim=1, keepdim=True)
    before = torch.cat([windows[:, :1], windows[:, :-1]], dim=1)
    return (windows - CONSTANTS["kaldi"]["preemphasis"] * before) * torch.hann_window(windows.shape[1], periodic=False)


def _power(windows: Tensor, spec: LogmelSpec) -> Tensor:
    spectrum = torch.fft.rfft(windows, spec.fft_samples)
    return spectrum.real.square() + spectrum.imag.square()  # Twice as fast as abs().


def _by_windows(values: Callable[[Tensor], Tensor], samples: Tensor, frames: int, spec: LogmelSpec) -> Tensor:
    """Apply to the windows that begin at every hop, some at a time."""
    padded = _padded(samples, (frames - 1) * spec.hop_samples + spec.window_samples)
    windows = padded.unfold(0, spec.window_samples, spec.hop_samples)[:frames]
    return torch.cat([values(some.contiguous()) for some in windows.split(FRAMES_AT_ONCE)])


def _padded(samples: Tensor, least: int) -> Tensor:
    return torch.nn.functional.pad(samples, (0, max(0, least - len(samples))))


@lru_cache(maxsize=4)
def _centred_power(spec: LogmelSpec) -> torchaudio.transforms.Spectrogram:
    return torchaudio.transforms.Spectrogram(
        n_fft=spec.fft_samples,
        win_length=spec.window_samples,
        hop_length=spec.hop_samples,
        power=2.0,
        center=True,
        pad_mode="constant",
    )


@lru_cache(maxsize=4)
def _triangles_in_hz(spec: LogmelSpec) -> Tensor:
    """Filter bank (bins x mels), each band's weights summing to 1."""
    numbers = spec.numbers
    filters = torchaudio.functional.melscale_fbanks(
        spec.fft_samples // 2 + 1, numbers.min_hz, numbers.max_hz, spec.mels, spec.sample_rate_hz, None, "htk"
    )
    _require_full(filters, spec)
    return filters / filters.sum(0)


@lru_cache(maxsize=4)
def _triangles_in_mel(spec: LogmelSpec) -> Tensor:
    """Filter bank (bins x mels), each band 1 at its centre."""
    numbers = spec.numbers
    bins = _mel(np.arange(spec.fft_samples // 2 + 1) * (spec.sample_rate_hz / spec.fft_samples))
    lowest, highest = _mel(np.array([numbers.min_hz, numbers.max_hz]))
    edges = np.linspace(lowest, highest, spec.mels + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    filters = torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))
    if spec.formula != "kaldi":
        _require_full(filters, spec)
    return filters


def _mel(hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hz / 700.0)


def _require_full(filters: Tensor, spec: LogmelSpec) -> None:
    empty = int((filters.sum(0) == 0).sum())
    if empty:
        raise ValueError(f"{empty} of {spec.mels} mel bands hold no frequency bin; use fewer bands or a longer window")
