"""Which network a modality gets, and what is said of a user's network that does not keep the rules."""

import sys
from dataclasses import replace

import pytest
import torch

from gblend.config import EncodersConfig, ModelConfig
from gblend.encoders import DIMS, IN_CHANNELS, OwnEncoder, make_encoder
from gblend.model import make_model
from gblend.resnet2d import resnet2d
from gblend.resnet3d import resnet3d

OWN = '''
import torch
from torch import nn

class Mean(nn.Module):
    """Means over all axes behind the channels, through one linear layer."""

    def __init__(self, in_channels, output_dim=5):
        super().__init__()
        self.output_dim = output_dim
        self.layer = nn.Linear(in_channels, output_dim)

    def forward(self, x):
        return self.layer(x.flatten(2).mean(dim=2))

class Flat(Mean):
    def forward(self, x):
        return x.flatten(1)

def nameless(in_channels):
    network = Mean(in_channels)
    del network.output_dim
    return network

def textual(in_channels):
    network = Mean(in_channels)
    network.output_dim = "five"
    return network

def nothing(in_channels):
    return in_channels

number = 7
'''


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    """Name of an importable module of a user's."""
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_networks"
    for name in ("own_networks", "own_broken"):
        sys.modules.pop(name, None)


def own_config(**places) -> ModelConfig:
    return ModelConfig(encoders=EncodersConfig(**places))


def test_pictures_get_a_trunk_of_three_axes_and_sound_one_of_two():
    config = ModelConfig()
    for name, make in (("rgb", resnet3d), ("flow", resnet3d), ("logmel", resnet2d)):
        expected = make(config, in_channels=IN_CHANNELS[name]).state_dict()
        found = make_encoder(name, config).state_dict()
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}
    assert set(DIMS) == set(IN_CHANNELS)


@pytest.mark.parametrize(("modality", "setting"), [("rgb", "visual_weights"), ("logmel", "audio_weights")])
def test_pretrained_weights_reach_the_trunks_they_are_given_for(modality, setting, tmp_path):
    config = ModelConfig(audio_stem="imagenet")
    donor = make_encoder(modality, config)
    ours_to_theirs = (("stem.0", "conv1"), ("stem.1", "bn1")) if modality == "logmel" else ()
    state = {}
    for name, values in donor.state_dict().items():
        stage = name.split(".")
        theirs = name
        if stage[0] == "stages":
            kind = f"conv{int(stage[4]) + 1}" if stage[3] == "convs" else "downsample"
            theirs = ".".join([f"layer{int(stage[1]) + 1}", stage[2], kind, *stage[5 if stage[3] == "convs" else 4 :]])
        for ours, other in ours_to_theirs:
            theirs = theirs.replace(ours, other)
        state[theirs] = values
    torch.save(state, tmp_path / "weights.pt")
    loaded = make_encoder(modality, replace(config, **{setting: str(tmp_path / "weights.pt")}))
    assert all(torch.equal(values, donor.state_dict()[name]) for name, values in loaded.state_dict().items())


@pytest.mark.parametrize("modality", ["rgb", "flow", "logmel"])
def test_a_users_network_takes_the_place_of_a_trunk(own, modality):
    network = make_model(("rgb", "flow", "logmel"), 3, own_config(**{modality: f"{own}:Mean"}), seed=0)
    encoder = network.encoders[modality]
    assert isinstance(encoder, OwnEncoder)
    assert encoder.network.layer.in_features == IN_CHANNELS[modality]
    assert network.heads[modality].in_features == 5
    assert sum(isinstance(e, OwnEncoder) for e in network.encoders.values()) == 1


def test_a_modality_we_do_not_know_joins_by_its_own_network(own):
    config = own_config(other={"imu": f"{own}:Mean"})
    network = make_model(("rgb", "imu"), 3, config, seed=0, shapes={"imu": (6, 50)})
    inputs = {"rgb": torch.randn(2, 3, 2, 8, 8), "imu": torch.randn(2, 6, 50)}
    logits = network(inputs, {name: torch.ones(2, dtype=torch.bool) for name in inputs})
    assert {name: tuple(values.shape) for name, values in logits.items()} == dict.fromkeys(
        ("rgb", "imu", "fused"), (2, 3)
    )


def test_the_seed_decides_a_users_network_too(own):
    config = own_config(rgb=f"{own}:Mean")
    one, again, other = (make_model(("rgb", "logmel"), 3, config, seed=seed).encoders["rgb"] for seed in (1, 1, 2))
    assert torch.equal(one.network.layer.weight, again.network.layer.weight)
    assert not torch.equal(one.network.layer.weight, other.network.layer.weight)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "no_such_module:make",
            r"model.encoders.rgb \(no_such_module:make\): no_such_module cannot be imported \(No mod",
        ),
        ("own_broken:make", r"own_broken cannot be imported \(No module named 'no_such_library'\)"),
        ("own_networks:absent", "module own_networks has no absent"),
        ("own_networks:number", "number must be callable with the number of channels, is int"),
        ("own_networks:nothing", "must return a torch.nn.Module, returned int"),
        ("own_networks:nameless", "needs an attribute output_dim, the length of its features"),
        ("own_networks:textual", "needs an attribute output_dim, the length of its features"),
    ],
)
def test_a_users_network_that_cannot_be_made_is_one_line(own, place, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_encoder("rgb", own_config(rgb=place))
    assert "\n" not in str(caught.value)


def test_features_of_another_shape_are_refused_where_they_enter(own):
    encoder = make_encoder("rgb", own_config(rgb=f"{own}:Flat"))
    with pytest.raises(ValueError, match=r"must map \(2, 3, 2, 4, 4\) to \(2, 5\), .*; got \(2, 96\)"):
        encoder(torch.zeros(2, 3, 2, 4, 4))


def test_a_modality_without_a_known_shape_says_what_is_missing(own):
    with pytest.raises(ValueError, match="unknown modality 'imu'; allowed: rgb, flow, logmel, and tensors of your own"):
        make_encoder("imu", own_config(other={"imu": f"{own}:Mean"}))


def test_mid_fusion_cannot_cut_a_users_network(own):
    config = replace(own_config(logmel=f"{own}:Mean"), fusion="mid")
    with pytest.raises(
        ValueError, match=r"encoder of logmel is a network of your own; .* concat, se-gate, nl-gate, lmf"
    ):
        make_model(("rgb", "logmel"), 3, config, seed=0)
