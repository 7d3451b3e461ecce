"""Log-mel spectrogram, the recipe of the paper's released code (``gblend-40``): 100 frames of 40 bands a second.

Power spectrum of a periodic Hann window, triangles on mel = 1127 ln(1 + f / 700) with each band's weights summing to 1,
a gain of 1.0807e9 (about 32768 squared: samples count as 16-bit integers), then ln x above e and x / e below, which is
continuous and never negative. Frame i is centred at ``start + i * hop``; beyond the clip's ends lie zeros.

With 129 bins 62.5 Hz apart the lowest band (0 to 91 Hz) holds a single bin and the next ones two; none is empty, which
is checked. The paper leaves open whether its triangles are straight in Hz or in mel; here they are straight in Hz.
"""

from functools import lru_cache

import numpy as np
import torch
import torchaudio
from jaxtyping import Float16, Float32

from pipelines.spans import stored_count
from schemas.features import LogmelSpec

GAIN = 1.0807e9


@lru_cache(maxsize=4)
def _transforms(spec: LogmelSpec) -> tuple[torchaudio.transforms.Spectrogram, torch.Tensor]:
    """The power spectrum, and the filter bank (bins x mels)."""
    window = spec.window_samples
    power = torchaudio.transforms.Spectrogram(
        n_fft=window, win_length=window, hop_length=spec.hop_samples, power=2.0, center=True, pad_mode="constant"
    )
    filters = torchaudio.functional.melscale_fbanks(
        window // 2 + 1, 0.0, spec.max_hz, spec.mels, spec.sample_rate_hz, norm=None, mel_scale="htk"
    )
    totals = filters.sum(0)
    if not bool((totals > 0).all()):
        raise ValueError(f"{int((totals == 0).sum())} of {spec.mels} mel bands hold no frequency bin; use fewer bands")
    return power, filters / totals


def logmel(
    samples: Float32[np.ndarray, " sample"], *, duration_s: float, spec: LogmelSpec
) -> Float16[np.ndarray, "frame mel"]:
    """Log-mel of a whole clip: one frame for each hop in [0, duration_s).

    >>> logmel(np.zeros(16_000, np.float32), duration_s=1.0, spec=LogmelSpec()).shape
    (100, 40)
    """
    power, filters = _transforms(spec)
    frames = stored_count(duration_s, spec.sample_rate_hz / spec.hop_samples)
    # Sound for the window of the last frame, however the length was rounded.
    needed = frames * spec.hop_samples
    padded = torch.zeros(max(needed, len(samples)), dtype=torch.float32)
    padded[: len(samples)] = torch.from_numpy(samples)
    with torch.inference_mode():
        energy = (power(padded)[:, :frames].T @ filters) * GAIN
        values = torch.where(energy > np.e, energy.clamp_min(np.e).log(), energy / np.e)
    return values.numpy().astype(np.float16)
