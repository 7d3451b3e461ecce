import librosa
import numpy as np
import pytest

from pipelines.logmel import GAIN, logmel
from schemas.features import LogmelSpec
from tests.media import tone

SPEC = LogmelSpec()


def written_out(samples: np.ndarray, frames: int) -> np.ndarray:
    """The recipe in NumPy and librosa, frame by frame."""
    n = np.arange(256)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 256)
    filters = librosa.filters.mel(sr=16_000, n_fft=256, n_mels=40, fmin=0.0, fmax=8000.0, htk=True, norm=None)
    filters = filters / filters.sum(axis=1, keepdims=True)
    padded = np.concatenate([np.zeros(128), samples.astype(np.float64), np.zeros(512)])
    rows = []
    for i in range(frames):
        power = np.abs(np.fft.rfft(padded[i * 160 : i * 160 + 256] * window)) ** 2
        x = filters @ power * 1.0807e9
        rows.append(np.where(x > np.e, np.log(np.maximum(x, np.e)), x / np.e))
    return np.array(rows)


def test_it_equals_the_recipe_written_out():
    rng = np.random.default_rng(0)
    samples = (tone(440, seconds=1.0) + rng.normal(0, 0.01, 16_000)).astype(np.float32)
    ours = logmel(samples, duration_s=1.0, spec=SPEC)
    assert ours.dtype == np.float16
    # float16 holds values below 32 to 1/128; the rest is float32 against float64.
    np.testing.assert_allclose(ours.astype(np.float64), written_out(samples, 100), atol=0.02)


def test_a_tone_lands_in_the_band_that_holds_its_frequency():
    values = logmel(tone(440, seconds=1.0), duration_s=1.0, spec=SPEC)[10:90].mean(axis=0)
    edges = 700 * (np.exp(np.linspace(0, 1127.0 * np.log(1 + 8000 / 700), 42) / 1127.0) - 1)
    best = int(values.argmax())
    assert edges[best] < 440 < edges[best + 2]


def test_frame_i_is_centred_at_its_instant():
    click = np.zeros(16_000, np.float32)
    click[50 * 160] = 1.0
    loudest = logmel(click, duration_s=1.0, spec=SPEC).astype(np.float32).sum(axis=1).argmax()
    assert loudest == 50


@pytest.mark.parametrize(("duration_s", "frames"), [(1.0, 100), (0.995, 100), (2.005, 201), (0.001, 1)])
def test_there_is_a_frame_for_each_hop_of_the_clip(duration_s, frames):
    samples = np.zeros(round(duration_s * 16_000), np.float32)
    assert logmel(samples, duration_s=duration_s, spec=SPEC).shape == (frames, 40)


def test_silence_is_zero_and_full_scale_is_finite():
    assert not logmel(np.zeros(1600, np.float32), duration_s=0.1, spec=SPEC).any()
    loud = logmel(np.ones(1600, np.float32), duration_s=0.1, spec=SPEC)
    assert np.isfinite(loud).all()
    assert float(loud.max()) < np.log(GAIN * 128**2) + 0.1


def test_too_many_bands_for_the_window_is_an_error():
    with pytest.warns(UserWarning, match="all zero"), pytest.raises(ValueError, match="hold no frequency bin"):
        logmel(np.zeros(1600, np.float32), duration_s=0.1, spec=LogmelSpec(recipe="custom", mels=128))
