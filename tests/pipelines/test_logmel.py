"""Every recipe against an independent reference: NumPy, librosa's filters, torchaudio's port of Kaldi."""

import librosa
import numpy as np
import pytest
import torch
import torchaudio

import pipelines.logmel
from pipelines.logmel import logmel
from schemas.logmel import LogmelNumbers, LogmelSpec
from tests.media import tone

SPEC = LogmelSpec()
RECIPES = ("gblend-40", "vggish-64", "ast-128")


def tone_in_noise(seconds: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.01, round(seconds * 16_000))
    return (tone(440, seconds=seconds) + noise).astype(np.float32)


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


def vggish_written_out(samples: np.ndarray) -> np.ndarray:
    """Frames that lie in the clip, band by band and bin by bin, in float64."""
    mel = [1127.0 * np.log(1.0 + hz / 700.0) for hz in (125.0, 7500.0)]
    edges = [mel[0] + (mel[1] - mel[0]) * i / 65 for i in range(66)]
    weights = np.zeros((257, 64))
    for k in range(1, 257):
        at = 1127.0 * np.log(1.0 + k * 31.25 / 700.0)
        for band in range(64):
            left, centre, right = edges[band : band + 3]
            weights[k, band] = max(0.0, min((at - left) / (centre - left), (right - at) / (right - centre)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = []
    for start in range(0, len(samples) - 399, 160):
        magnitude = np.abs(np.fft.rfft(samples[start : start + 400].astype(np.float64) * window, 512))
        rows.append(np.log(magnitude @ weights + 0.01))
    return np.array(rows)


def test_it_equals_the_recipe_written_out():
    samples = tone_in_noise(1.0)
    ours = logmel(samples, duration_s=1.0, spec=SPEC)
    assert ours.dtype == np.float16
    # float16 holds values below 32 to 1/128; the rest is float32 against float64.
    np.testing.assert_allclose(ours.astype(np.float64), written_out(samples, 100), atol=0.02)


def test_vggish_equals_the_recipe_written_out():
    samples = tone_in_noise(1.0)
    ours = logmel(samples, duration_s=1.0, spec=LogmelSpec(recipe="vggish-64"))
    expected = vggish_written_out(samples)
    assert (ours.shape, expected.shape) == ((100, 64), (98, 64))
    # float16 holds values below 8 to 1/256.
    np.testing.assert_allclose(ours[:98].astype(np.float64), expected, atol=0.005)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_ast_equals_torchaudios_kaldi(offset):
    samples = tone_in_noise(1.0) + np.float32(offset)
    expected = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(samples - samples.mean())[None],
        htk_compat=True,
        sample_frequency=16_000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    ).numpy()
    ours = logmel(samples, duration_s=1.0, spec=LogmelSpec(recipe="ast-128"))
    assert (ours.shape, expected.shape) == ((100, 128), (98, 128))
    # float16 holds values below 16 to 1/128.
    np.testing.assert_allclose(ours[:98].astype(np.float64), expected, atol=0.01)


@pytest.mark.parametrize("recipe", ["vggish-64", "ast-128"])
def test_a_long_clip_is_the_same_in_pieces(recipe, monkeypatch):
    samples, spec = tone_in_noise(1.0), LogmelSpec(recipe=recipe)
    whole = logmel(samples, duration_s=1.0, spec=spec)
    monkeypatch.setattr(pipelines.logmel, "FRAMES_AT_ONCE", 7)
    np.testing.assert_allclose(logmel(samples, duration_s=1.0, spec=spec), whole, atol=0.01)


def test_custom_numbers_are_the_recipes_when_they_are_the_recipes():
    numbers = LogmelNumbers(
        formula="vggish", window_s=0.025, fft_samples=512, mels=64, min_hz=125.0, max_hz=7_500.0, log_offset=0.01
    )
    samples = tone_in_noise(0.3)
    custom, named = (
        logmel(samples, duration_s=0.3, spec=spec)
        for spec in (LogmelSpec(recipe="custom", custom=numbers), LogmelSpec(recipe="vggish-64"))
    )
    np.testing.assert_array_equal(custom, named)


def test_custom_numbers_take_effect():
    """44.1 kHz, 1024 and 512 samples, 64 bands of 50 to 14,000 Hz, against librosa."""
    rate = 44_100
    numbers = LogmelNumbers(
        sample_rate_hz=rate, window_s=1024 / rate, hop_s=512 / rate, fft_samples=2048, mels=64, min_hz=50.0, max_hz=14e3
    )
    samples = tone(1_000, seconds=0.5, rate=rate)
    ours = logmel(samples, duration_s=0.5, spec=LogmelSpec(recipe="custom", custom=numbers))
    spectrum = librosa.stft(
        samples.astype(np.float64), n_fft=2048, win_length=1024, hop_length=512, pad_mode="constant", center=True
    )
    filters = librosa.filters.mel(sr=rate, n_fft=2048, n_mels=64, fmin=50.0, fmax=14e3, htk=True, norm=None)
    x = (filters / filters.sum(axis=1, keepdims=True)) @ np.abs(spectrum) ** 2 * 1.0807e9
    expected = np.where(x > np.e, np.log(np.maximum(x, np.e)), x / np.e).T
    np.testing.assert_allclose(ours[:42].astype(np.float64), expected[:42], atol=0.03)


def test_a_tone_lands_in_the_band_that_holds_its_frequency():
    values = logmel(tone(440, seconds=1.0), duration_s=1.0, spec=SPEC)[10:90].mean(axis=0)
    edges = 700 * (np.exp(np.linspace(0, 1127.0 * np.log(1 + 8000 / 700), 42) / 1127.0) - 1)
    best = int(values.argmax())
    assert edges[best] < 440 < edges[best + 2]


@pytest.mark.parametrize("recipe", RECIPES)
def test_frame_i_is_centred_where_the_spec_says(recipe):
    """A click at the centre of frame 50."""
    spec = LogmelSpec(recipe=recipe)
    click = np.zeros(16_000, np.float32)
    click[round((50 * spec.hop_s + spec.first_centre_s) * 16_000)] = 1.0
    loudness = logmel(click, duration_s=1.0, spec=spec).astype(np.float32).sum(axis=1)
    assert loudness.argmax() == 50


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("duration_s", "frames"), [(1.0, 100), (0.995, 100), (2.005, 201), (0.001, 1)])
def test_there_is_a_frame_for_each_hop_of_the_clip(recipe, duration_s, frames):
    spec, samples = LogmelSpec(recipe=recipe), np.zeros(round(duration_s * 16_000), np.float32)
    assert logmel(samples, duration_s=duration_s, spec=spec).shape == (frames, spec.mels)


@pytest.mark.parametrize("recipe", RECIPES)
def test_silence_is_what_the_spec_says_and_full_scale_is_finite(recipe):
    spec = LogmelSpec(recipe=recipe)
    assert np.unique(logmel(np.zeros(1600, np.float32), duration_s=0.1, spec=spec)).tolist() == [spec.silence]
    loud = logmel(np.sign(tone(1000, seconds=0.1)), duration_s=0.1, spec=spec)
    assert np.isfinite(loud).all()
    assert float(loud.max()) < np.log(1.0807e9 * 128**2) + 0.1


@pytest.mark.parametrize("recipe", ["vggish-64", "ast-128"])
def test_the_last_windows_reach_into_silence_beyond_the_clip(recipe):
    """As if the clip had gone on in silence."""
    samples, spec = tone_in_noise(0.5), LogmelSpec(recipe=recipe)
    samples -= samples.mean()
    longer = np.concatenate([samples, np.zeros(8_000, np.float32)])
    ours = logmel(samples, duration_s=0.5, spec=spec)
    np.testing.assert_allclose(ours, logmel(longer, duration_s=1.0, spec=spec)[:50], atol=0.01)


@pytest.mark.parametrize("formula", ["gblend", "vggish"])
@pytest.mark.filterwarnings("ignore:.*all zero")
def test_too_many_bands_for_the_window_is_an_error(formula):
    numbers = LogmelNumbers(formula=formula, mels=128)
    with pytest.raises(ValueError, match="of 128 mel bands hold no frequency bin"):
        logmel(np.zeros(1600, np.float32), duration_s=0.1, spec=LogmelSpec(recipe="custom", custom=numbers))
