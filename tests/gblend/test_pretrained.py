"""Weights from torchvision's files: then the trunk answers as torchvision's network, and what does not fit is named."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.models.video import mc3_18, r2plus1d_18, r3d_18
from torchvision.models.video.resnet import BasicStem, Bottleneck, Conv3DSimple, VideoResNet

from gblend.config import ModelConfig
from gblend.pretrained import load_pretrained
from gblend.resnet import Trunk
from gblend.resnet2d import resnet2d
from gblend.resnet3d import resnet3d


class Depthwise(nn.Conv3d):
    """A 3x3x3 convolution of single channels, as an argument of torchvision's video network."""

    def __init__(self, inputs, outputs, _middle=None, stride=1, padding=1):
        super().__init__(inputs, outputs, 3, stride=stride, padding=padding, groups=inputs, bias=False)

    @staticmethod
    def get_downsample_stride(stride):
        return (stride, stride, stride)


class PointwiseDepthwise(nn.Sequential):
    def __init__(self, inputs, outputs, _middle=None, stride=1, padding=1):
        pointwise = nn.Conv3d(inputs, outputs, 1, bias=False)
        super().__init__(pointwise, nn.BatchNorm3d(outputs), Depthwise(outputs, outputs, stride=stride))

    get_downsample_stride = Depthwise.get_downsample_stride


class PoolingStem(BasicStem):
    def __init__(self):
        super().__init__()
        self.append(nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))


def bottlenecks(conv, stem):
    return partial(of_weights, VideoResNet, block=Bottleneck, conv_makers=[conv] * 4, layers=[1, 2, 1, 1], stem=stem)


def of_weights(make, *, weights, **options):
    assert weights is None
    return make(**options)


SHORT = {"visual_depth": None, "visual_layers": (1, 2, 1, 1), "visual_residual": "bottleneck"}
VIDEO = {
    "r3d_18": (r3d_18, {"visual_block": "r3d"}),
    "mc3_18": (mc3_18, {"visual_block": "mc3"}),
    "r2plus1d_18": (r2plus1d_18, {"visual_block": "r2plus1d", "r2plus1d_middle": "block"}),
    "bottlenecks": (bottlenecks(Conv3DSimple, BasicStem), {"visual_block": "r3d", **SHORT}),
    "ir_csn": (bottlenecks(Depthwise, PoolingStem), {"visual_block": "ir_csn", **SHORT}),
    "ip_csn": (bottlenecks(PointwiseDepthwise, PoolingStem), {"visual_block": "ip_csn", **SHORT}),
}
"""Torchvision's networks, and those its parts make, with our names for them."""
IMAGE = {"resnet18": (resnet18, 18), "resnet50": (resnet50, 50)}


def video_trunk(channels: int = 3, **changes) -> Trunk:
    return empty(resnet3d, ModelConfig(**{"visual_depth": 18, "visual_width": 64, **changes}), channels)


def image_trunk(channels: int, depth: int) -> Trunk:
    config = ModelConfig(audio_stem="imagenet", audio_depth=depth, audio_width=64)
    return empty(resnet2d, config, channels)


def empty(make, config: ModelConfig, channels: int) -> Trunk:
    """A trunk whose every number must come from the file."""
    with torch.device("meta"):
        trunk = make(config, in_channels=channels)
    trunk.to_empty(device="cpu")
    for values in trunk.state_dict().values():
        values.fill_(0 if values.dtype == torch.int64 else float("nan"))
    return trunk.eval()


def trained(make) -> nn.Module:
    """A twin with random weights whose BatchNorms are not the identity, as after training."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = make(weights=None).eval()
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(7)
        elif isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            bound = (3 / module.weight[0].numel()) ** 0.5
            nn.init.uniform_(module.weight, -bound, bound)
    nn.init.zeros_(network.fc.bias)
    return network


def saved(network: nn.Module, path) -> str:
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("name", VIDEO)
def test_a_video_trunk_with_torchvisions_weights_gives_its_logits(name, tmp_path):
    make, config = VIDEO[name]
    network = trained(make)
    trunk = video_trunk(**config)
    load_pretrained(trunk, saved(network, tmp_path / "weights.pt"))
    clip = torch.randn(2, 3, 4, 24, 20)
    with torch.no_grad():
        torch.testing.assert_close(network.fc(trunk(clip)), network(clip), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", IMAGE)
def test_an_image_trunk_with_torchvisions_weights_gives_its_logits(name, tmp_path):
    make, depth = IMAGE[name]
    network = trained(make)
    trunk = image_trunk(3, depth)
    load_pretrained(trunk, saved(network, tmp_path / "weights.pt"))
    picture = torch.randn(2, 3, 45, 40)
    with torch.no_grad():
        torch.testing.assert_close(network.fc(trunk(picture)), network(picture), rtol=1e-4, atol=1e-4)


def test_a_trunk_of_one_channel_answers_as_torchvision_to_the_same_in_all_channels(tmp_path):
    network = trained(resnet18)
    trunk = image_trunk(1, 18)
    load_pretrained(trunk, saved(network, tmp_path / "weights.pt"))
    sound = torch.randn(2, 1, 45, 40)
    with torch.no_grad():
        expected = network(sound.expand(-1, 3, -1, -1))
        torch.testing.assert_close(network.fc(trunk(sound)), expected, rtol=1e-4, atol=1e-4)


def test_a_trunk_for_flow_answers_as_torchvision_where_all_channels_are_equal(tmp_path):
    network = trained(mc3_18)
    trunk = video_trunk(2, visual_block="mc3")
    load_pretrained(trunk, saved(network, tmp_path / "weights.pt"))
    gray = torch.randn(1, 1, 4, 16, 16)
    with torch.no_grad():
        expected = network(gray.expand(-1, 3, -1, -1, -1))
        torch.testing.assert_close(network.fc(trunk(gray.expand(-1, 2, -1, -1, -1))), expected, rtol=1e-4, atol=1e-4)


def test_a_file_without_the_counters_of_old_versions_is_read(tmp_path):
    network = trained(resnet18)
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "weights.pt")
    trunk = image_trunk(3, 18)
    load_pretrained(trunk, str(tmp_path / "weights.pt"))
    assert torch.equal(trunk.stem[0].weight, network.conv1.weight)


def test_names_that_do_not_fit_are_listed(tmp_path):
    state = trained(resnet18).state_dict()
    state["extra.weight"] = torch.zeros(3)
    del state["layer3.1.conv2.weight"]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"missing: stages\.2\.1\.convs\.1\.0\.weight; unexpected: extra\.weight\)"):
        load_pretrained(image_trunk(3, 18), str(tmp_path / "weights.pt"))


def test_another_network_is_refused_before_anything_is_written(tmp_path):
    place = saved(trained(r2plus1d_18), tmp_path / "weights.pt")
    trunk = video_trunk(visual_block="r2plus1d")  # of the paper's widths, not torchvision's
    with pytest.raises(
        ValueError, match=r"another network \(of another shape: .*convs\.1.* and \d+ more\); model\.visual_block"
    ):
        load_pretrained(trunk, place)
    assert trunk.stem[0].weight.isnan().all()


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_pretrained(image_trunk(3, 18), str(tmp_path / "weights.pt"))


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save(trained(resnet18), tmp_path / "weights.pt")  # a whole pickled module
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_pretrained(image_trunk(3, 18), str(tmp_path / "weights.pt"))


def test_a_missing_file_says_which(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_pretrained(image_trunk(3, 18), str(tmp_path / "nowhere.pt"))


def test_a_url_is_downloaded_and_only_tensors_are_read(monkeypatch):
    seen = {}
    state = trained(resnet18).state_dict()

    def download(url, **options):
        seen.update(url=url, **options)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    trunk = image_trunk(3, 18)
    load_pretrained(trunk, "https://example.org/resnet18.pth")
    assert seen["url"] == "https://example.org/resnet18.pth"
    assert seen["weights_only"] is True
    assert torch.equal(trunk.stem[0].weight, state["conv1.weight"])
