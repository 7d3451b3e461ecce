"""Which gradient reaches what, and that a branch is the part of the whole that it says it is."""

import pytest
import torch
import torch.nn.functional as F

from gblend.model import BlendModel, make_model
from tests.gblend.tiny import CLASSES, FRAMES, MEL_FRAMES, MODALITIES, SIDE, tiny_config

HEADS = (*MODALITIES, "fused")


def model(seed: int = 0) -> BlendModel:
    return make_model(MODALITIES, len(CLASSES), tiny_config().model, seed=seed)


def inputs(batch: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"rgb": (3, FRAMES, SIDE, SIDE), "flow": (2, FRAMES, SIDE, SIDE), "logmel": (1, MEL_FRAMES, 40)}
    return {name: torch.randn(batch, *shape, generator=generator) for name, shape in shapes.items()}


def present(batch: int = 4, **absent: list[int]) -> dict[str, torch.Tensor]:
    masks = {name: torch.ones(batch, dtype=torch.bool) for name in MODALITIES}
    for name, clips in absent.items():
        masks[name][clips] = False
    return masks


def test_heads_come_in_the_order_of_modalities_the_fused_head_last():
    assert model().head_names == HEADS
    assert {name: tuple(logits.shape) for name, logits in model()(inputs(), present()).items()} == dict.fromkeys(
        HEADS, (4, 3)
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_branch_answers_as_the_whole_network_does(head):
    whole = model().eval()
    branch = whole.branch(head).eval()
    with torch.no_grad():
        assert torch.equal(branch(inputs(), present())[head], whole(inputs(), present())[head])


@pytest.mark.parametrize("head", HEADS)
def test_a_branch_shares_no_memory_with_the_whole(head):
    whole = model()
    before = {name: values.clone() for name, values in whole.state_dict().items()}
    with torch.no_grad():
        for values in whole.branch(head).state_dict().values():
            values.add_(1)
    assert all(torch.equal(values, before[name]) for name, values in whole.state_dict().items())


@pytest.mark.parametrize("head", HEADS)
def test_the_names_in_a_branch_are_those_of_the_whole(head):
    whole, branch = model().state_dict(), model().branch(head).state_dict()
    assert all(torch.equal(values, whole[name]) for name, values in branch.items())


def test_the_branches_together_are_the_whole():
    whole = model()
    assert {name for head in HEADS for name in whole.branch(head).state_dict()} == set(whole.state_dict())


@pytest.mark.parametrize("head", HEADS)
def test_a_loss_reaches_the_encoders_its_head_reads_and_no_other(head):
    network = model()
    F.cross_entropy(network(inputs(), present())[head], torch.tensor([0, 1, 2, 0])).backward()
    reached = {name for name, encoder in network.encoders.items() if encoder.stem[0].weight.grad is not None}
    assert reached == (set(MODALITIES) if head == "fused" else {head})
    assert {name for name, h in network.heads.items() if any(p.grad is not None for p in h.parameters())} == {head}


def test_what_a_clip_lacks_cannot_change_its_answer():
    network, one, other = model().eval(), inputs(), inputs()
    other["logmel"][[1, 3]] = 1e3
    with torch.no_grad():
        answers = [network(x, present(logmel=[1, 3]))["fused"] for x in (one, other)]
    assert torch.equal(*answers)


def test_the_fused_head_sees_zeros_for_what_a_clip_lacks():
    network = model().eval()
    with torch.no_grad():
        got = network(inputs(), present(flow=[0]))["fused"][0]
        features = [network.encoders[name](inputs()[name])[:1] for name in MODALITIES]
        features[1] = torch.zeros_like(features[1])
        expected = network.heads["fused"](torch.cat(features, dim=1))[0]
    torch.testing.assert_close(got, expected)


def test_the_seed_alone_decides_the_parameters():
    torch.manual_seed(1)
    one = model(seed=3).state_dict()
    torch.manual_seed(2)
    again, other = model(seed=3).state_dict(), model(seed=4).state_dict()
    assert all(torch.equal(values, again[name]) for name, values in one.items())
    assert not torch.equal(one["heads.rgb.weight"], other["heads.rgb.weight"])


def test_making_a_network_leaves_the_random_state_of_every_device_alone(monkeypatch):
    def forbidden(seed):
        raise AssertionError("a GPU's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", forbidden)
    before = torch.get_rng_state()
    model()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_head_names_the_heads():
    with pytest.raises(ValueError, match="no head 'audio'; heads: rgb, flow, logmel, fused"):
        model().branch("audio")


def test_an_unknown_modality_names_the_known_ones_and_the_way_to_add_one():
    with pytest.raises(
        ValueError, match=r"unknown modality 'smell'; allowed: rgb, flow, logmel, .*model\.encoders\.other"
    ):
        make_model(("rgb", "smell"), 3, tiny_config().model, seed=0)


def test_one_modality_cannot_be_blended():
    with pytest.raises(ValueError, match=r"at least two modalities, got \['rgb'\]"):
        make_model(("rgb",), 3, tiny_config().model, seed=0)


def test_clips_that_lack_a_modality_do_not_reach_its_batch_statistics():
    whole, batch = model().train(), inputs(6)
    masks = present(6, logmel=[2, 4])
    alone = model().train().encoders["logmel"](batch["logmel"][masks["logmel"]])
    expected = torch.zeros(6, alone.shape[1])
    expected[masks["logmel"]] = alone
    seen = []
    whole.heads["logmel"].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    whole(batch, masks)
    torch.testing.assert_close(seen[0], expected)


def test_a_batch_without_a_modality_at_all_still_has_an_answer():
    logits = model().train()(inputs(4), present(4, logmel=[0, 1, 2, 3]))
    assert all(torch.isfinite(values).all() for values in logits.values())
