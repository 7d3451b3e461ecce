"""RAFT with random weights against torchvision called directly; what its weights have to do with a fingerprint."""

import hashlib
import json
import os
import shutil
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small

import pipelines.flow
import pipelines.raft
from pipelines.flow import dequantise, flow_images, prepared, warm_up
from pipelines.raft import pin_weights
from schemas.features import FeatureSpec
from schemas.flow import FlowSpec

BOUND_PX = 64.0


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return raft_small().eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("raft") / "small.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (4, 60, 139, 3), dtype=np.uint8)


def spec_of(path, **changes) -> FlowSpec:
    return FlowSpec(algorithm="raft", raft_weights=str(path), bound_px=BOUND_PX, **changes)


def as_stored(frames: np.ndarray) -> tuple[np.ndarray, ...]:
    """Red, green, blue to blue, green, red, frame by frame."""
    return tuple(np.ascontiguousarray(frames[..., ::-1]))


def direct(network, frames: np.ndarray, stride: int) -> np.ndarray:
    """One pair at a time; 60 x 139 becomes 128 x 144 by repeating the border, 34 rows and 2 or 3 columns a side."""
    padded = np.pad(frames, ((0, 0), (34, 34), (2, 3), (0, 0)), mode="edge")
    images = torch.from_numpy(padded.astype(np.float32) / 255 * 2 - 1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        flows = [network(a[None], b[None])[-1][0] for a, b in zip(images, images[stride:], strict=False)]
    return np.stack([f[:, 34:94, 2:141].numpy() for f in flows])


@pytest.mark.skipif(torch.cuda.is_available(), reason="the reference is computed on the CPU")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pairs_at_once", [1, 2, 23])
def test_it_is_torchvisions_network_on_padded_frames(network, weights, frames, stride, pairs_at_once, monkeypatch):
    monkeypatch.setattr(pipelines.raft, "PIXELS_AT_ONCE", 128 * 144 * pairs_at_once)
    images = flow_images(as_stored(frames), spec_of(weights, stride=stride))
    expected = direct(network, frames, stride)
    assert len(images) == len(expected) == 4 - stride
    got = np.stack([dequantise(image, bound_px=BOUND_PX).reshape(2, 60, 139) for image in images])
    assert float(np.abs(expected).max()) < BOUND_PX
    assert float(expected.std()) > 2 * BOUND_PX / 255
    np.testing.assert_allclose(got, expected, atol=2 * BOUND_PX / 255)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_flow_of_the_cpu_within_a_level(network, weights, frames):
    got = np.stack(
        [dequantise(i, bound_px=BOUND_PX).reshape(2, 60, 139) for i in flow_images(as_stored(frames), spec_of(weights))]
    )
    np.testing.assert_allclose(got, direct(network, frames, 1), atol=2 * BOUND_PX / 255)


def test_the_networks_threads_are_given_back(weights, frames):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        flow_images(as_stored(frames[:2]), spec_of(weights))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_fingerprint_is_of_the_weights_not_of_their_place(weights, tmp_path):
    shutil.copy(weights, tmp_path / "moved.pth")
    pinned = [FeatureSpec(flow=pin_weights(spec_of(path))) for path in (weights, tmp_path / "moved.pth")]
    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert [f.flow.raft_weights_sha256 for f in pinned] == [checksum] * 2
    assert pinned[0].fingerprint("flow") == pinned[1].fingerprint("flow")
    assert str(tmp_path) not in str(pinned[1].describe("flow")) + str(pinned[1].without_places().to_json())


def test_a_process_that_is_sent_the_spec_as_json_finds_the_weights(weights):
    pinned = FeatureSpec(flow=pin_weights(spec_of(weights)))
    sent = FeatureSpec.from_json(json.loads(json.dumps(pinned.to_json())))
    assert sent == pinned
    assert sent.flow.raft_weights == str(weights)


def test_what_was_loaded_beforehand_is_not_loaded_again_by_a_clip(weights, tmp_path, frames):
    shutil.copy(weights, tmp_path / "gone.pth")
    warm_up(spec_of(tmp_path / "gone.pth"))
    (tmp_path / "gone.pth").unlink()
    assert len(flow_images(as_stored(frames[:2]), spec_of(tmp_path / "gone.pth"))) == 1


def test_other_weights_have_another_fingerprint(weights, tmp_path):
    torch.manual_seed(1)
    torch.save(raft_small().state_dict(), tmp_path / "other.pth")
    pinned = [FeatureSpec(flow=pin_weights(spec_of(path))) for path in (weights, tmp_path / "other.pth")]
    assert pinned[0].fingerprint("flow") != pinned[1].fingerprint("flow")


def test_a_relative_path_is_pinned_to_where_it_was_meant(weights, monkeypatch):
    monkeypatch.chdir(weights.parent)
    assert pin_weights(spec_of(weights.name)).raft_weights == str(weights)


def test_weights_come_from_any_file_system(weights):
    assert pin_weights(spec_of(f"file://{weights}")).raft_weights == f"file://{weights}"


def test_a_spec_that_is_not_pinned_has_no_fingerprint(weights):
    with pytest.raises(ValueError, match=r"flow\.raft_weights_sha256 is not known yet.*pipelines.flow.prepared"):
        FeatureSpec(flow=spec_of(weights)).fingerprint("flow")


def test_preparing_a_job_pins_what_there_is_to_pin(weights):
    assert prepared(spec_of(weights)) == pin_weights(spec_of(weights))
    for algorithm in ("dis", "farneback", "tvl1"):
        assert prepared(FlowSpec(algorithm=algorithm)) == FlowSpec(algorithm=algorithm)


def test_an_opencv_without_contrib_modules_is_told_before_the_first_clip(monkeypatch):
    pipelines.flow._solver.cache_clear()
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(ValueError, match=r"tvl1 needs OpenCV's contrib modules.*opencv-contrib-python-headless"):
        prepared(FlowSpec(algorithm="tvl1"))


def test_weights_that_changed_since_they_were_pinned_are_refused(weights, tmp_path, frames):
    torch.manual_seed(2)
    torch.save(raft_small().state_dict(), tmp_path / "changed.pth")
    pinned = pin_weights(spec_of(weights))
    changed = spec_of(tmp_path / "changed.pth", raft_weights_sha256=pinned.raft_weights_sha256)
    with pytest.raises(ValueError, match=r"changed\.pth has the checksum [0-9a-f]{64}, flow\.raft_weights_sha256 says"):
        flow_images(as_stored(frames), changed)
    with pytest.raises(ValueError, match="give the weights of that checksum"):
        pin_weights(changed)


def test_weights_of_the_other_network_are_one_clear_line(weights):
    with pytest.raises(
        ValueError, match=r"^flow\.raft_weights .*small\.pth is not a state dict .*raft_large"
    ) as raised:
        pin_weights(spec_of(weights, raft_model="large"))
    assert "\n" not in str(raised.value)


def test_weights_that_are_not_there_are_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match=r"^flow\.raft_weights .*none\.pth cannot be read .*every node can read$"):
        pin_weights(spec_of(tmp_path / "none.pth"))


class _Mischief:
    def __reduce__(self):
        return os.mkdir, (os.environ["MISCHIEF"],)


def test_code_in_a_weights_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MISCHIEF", str(tmp_path / "done"))
    torch.save({"weight": _Mischief()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="is not a state dict"):
        pin_weights(spec_of(tmp_path / "evil.pth"))
    assert not (tmp_path / "done").exists()


def test_without_a_network_the_missing_download_names_the_remedy(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    message = r"raft_small cannot be downloaded from https://.* \(.*not known.*\); .* path as flow\.raft_weights$"
    with pytest.raises(ValueError, match=message):
        pin_weights(FlowSpec(algorithm="raft"))


def test_the_downloaded_weights_are_kept_and_pinned(weights, tmp_path, monkeypatch):
    fetched = []

    def download(url, path, *, hash_prefix, progress):
        fetched.append((url.rsplit("/", 1)[1], hash_prefix))
        shutil.copy(weights, path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    checksums = {pin_weights(FlowSpec(algorithm="raft")).raft_weights_sha256 for _ in range(2)}
    assert checksums == {hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert fetched == [("raft_small_C_T_V2-01064c6d.pth", "01064c6d")]
