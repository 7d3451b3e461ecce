"""Which gradient reaches what, and that a branch is the part of the whole that it says it is."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from gblend.config import EncodersConfig, ModelConfig
from gblend.model import BlendModel, make_model
from jobs.recipes import paper_r3d50
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
    with pytest.raises(ValueError, match="no branch 'audio'; branches: rgb, flow, logmel, fused"):
        model().branch("audio")


def test_an_unknown_modality_names_the_known_ones_and_the_way_to_add_one():
    with pytest.raises(
        ValueError, match=r"unknown modality 'smell'; allowed: rgb, flow, logmel, and tensors of your own: give"
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


FUSIONS = ("concat", "mid", "se-gate", "nl-gate", "lmf")
PAIRS = [("rgb", "logmel"), ("logmel", "flow"), MODALITIES]


def fused(fusion: str, modalities: tuple[str, ...] = MODALITIES, seed: int = 0, **changes) -> BlendModel:
    settings = {"visual_layers": (1, 1), "audio_layers": (1, 1), "mid_stages": 1, "fused_dropout": 0.0, **changes}
    return make_model(modalities, 3, replace(tiny_config().model, fusion=fusion, **settings), seed=seed)


def answers(network: BlendModel, masks: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return network(inputs(), masks or present())


def trained(network: BlendModel, steps: int = 2) -> BlendModel:
    """After a few large steps on all heads, so that no parameter is where it began."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(steps):
        logits = network(inputs(), present())
        optimizer.zero_grad()
        sum(F.cross_entropy(values, torch.tensor([0, 1, 2, 0])) for values in logits.values()).backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("modalities", PAIRS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_takes_two_and_more_modalities_in_any_order(fusion, modalities):
    network = fused(fusion, modalities)
    logits = answers(network)
    assert {name: tuple(values.shape) for name, values in logits.items()} == dict.fromkeys(
        (*modalities, "fused"), (4, 3)
    )


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("head", HEADS)
def test_a_loss_gives_gradients_to_what_its_head_reads_and_to_nothing_else(fusion, head):
    network = trained(fused(fusion), steps=1)  # a gate that begins at zero passes nothing back before its first step
    network.zero_grad()
    F.cross_entropy(network(inputs(), present())[head], torch.tensor([0, 1, 2, 0])).backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    read = {name for name, _ in network.branch(head).named_parameters()}
    assert {name.partition(".")[0] for name in reached} == {name.partition(".")[0] for name in read}
    assert reached <= read
    # Of what is read, only units that no clip switches on may be without a gradient: whole modules never are.
    assert {tuple(name.split(".")[:2]) for name in read} == {tuple(name.split(".")[:2]) for name in reached}
    encoders = {name.split(".")[1] for name in reached if name.startswith("encoders.")}
    assert encoders == (set(MODALITIES) if head == "fused" else {head})


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("head", HEADS)
def test_a_branch_of_any_fusion_answers_as_the_whole_does_and_shares_no_memory(fusion, head):
    whole = trained(fused(fusion)).eval()
    before = answers(whole)
    branch = whole.branch(head).eval()
    assert branch.head_names == (head,)
    assert torch.equal(answers(branch)[head], before[head])
    with torch.no_grad():
        for values in branch.state_dict().values():
            values.add_(1)
    assert all(torch.equal(values, before[name]) for name, values in answers(whole).items())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_branches_of_any_fusion_are_together_the_whole(fusion):
    whole = fused(fusion)
    assert {name for head in HEADS for name in whole.branch(head).state_dict()} == set(whole.state_dict())


@pytest.mark.parametrize("fusion", ["concat", "se-gate", "nl-gate", "lmf", "mid"])
def test_a_single_modality_branch_is_the_same_network_whatever_the_fusion(fusion):
    """So that the baseline of a comparison does not depend on it; a trunk that was cut counts stages from the cut."""
    config = replace(tiny_config().model, visual_layers=(1, 1), audio_layers=(1, 1), mid_stages=1, fusion=fusion)
    network = make_model(MODALITIES, 3, config, seed=0)
    plain = make_model(MODALITIES, 3, replace(config, fusion="concat"), seed=0)
    for name in MODALITIES:
        assert torch.equal(answers(network.branch(name).eval())[name], answers(plain.branch(name).eval())[name])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_was_trained_is_what_is_saved(fusion, tmp_path):
    network, untrained, loaded = trained(fused(fusion)), fused(fusion), fused(fusion, seed=1).eval()
    torch.save(network.state_dict(), tmp_path / "checkpoint.pt")
    start = dict(untrained.named_parameters())
    moved = {name.split(".")[0] for name, p in network.named_parameters() if not torch.equal(p, start[name])}
    assert moved == {name.split(".")[0] for name in start}
    if network.fusion is not None:
        for name, values in network.fusion.named_parameters():
            assert not torch.equal(values, start[f"fusion.{name}"]), name
    loaded.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    expected = answers(network.eval())
    assert all(torch.equal(values, expected[name]) for name, values in answers(loaded).items())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_with_any_fusion_what_a_clip_lacks_cannot_change_its_answer_or_any_statistic(fusion):
    one, other = (trained(fused(fusion)).train() for _ in range(2))
    masks = present(logmel=[1, 3], rgb=[0])
    changed = inputs()
    changed["logmel"][[1, 3]] = 1e3
    changed["rgb"][0] = 1e3
    with torch.no_grad():
        expected, found = one(inputs(), masks), other(changed, masks)
    assert all(torch.equal(values, expected[name]) for name, values in found.items())
    assert all(torch.equal(values, one.state_dict()[name]) for name, values in other.state_dict().items())


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("lacking", MODALITIES)
def test_an_answer_does_not_depend_on_the_other_clips_of_a_batch(fusion, lacking):
    """Also where no clip of a batch has a modality: its features then have the size they would have had."""
    network = trained(fused(fusion)).eval()
    together = answers(network, present(**{lacking: [2]}))
    masks = {name: torch.tensor([name != lacking]) for name in MODALITIES}
    with torch.no_grad():
        alone = network({name: values[2:3] for name, values in inputs().items()}, masks)
    for name in set(HEADS) - {lacking}:
        torch.testing.assert_close(alone[name][0], together[name][2])


def test_a_clip_without_anything_is_not_seen_by_the_batchnorm_of_a_fusion():
    one, other = fused("mid").train(), fused("mid").train()
    masks = present(rgb=[3], flow=[3], logmel=[3])
    three = {name: values[:3] for name, values in inputs().items()}
    with torch.no_grad():
        one(inputs(), masks)
        other(three, present(3))
    for name, values in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[name], values)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_dropout_falls_on_what_was_fused(fusion):
    network = fused(fusion, fused_dropout=0.5).train()
    seen = []
    network.heads["fused"][0].register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    network(inputs(), present())
    before, after = seen[0]
    kept = after != 0
    assert before.shape[1] == network.fusion.output_dim
    torch.testing.assert_close(after[kept], 2 * before[kept])
    assert 0 < int(kept.sum()) < int((before != 0).sum())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_picture_and_sound_of_any_size_are_fused(fusion):
    network = fused(fusion, ("rgb", "logmel")).eval()
    with torch.no_grad():
        logits = network(
            {"rgb": torch.randn(2, 3, 5, 17, 23), "logmel": torch.randn(2, 1, 31, 40)},
            {name: torch.ones(2, dtype=torch.bool) for name in ("rgb", "logmel")},
        )
    assert logits["fused"].shape == (2, 3)


def test_the_joint_network_of_the_paper_has_its_number_of_parameters():
    with torch.device("meta"):
        network = make_model(("rgb", "logmel"), 400, paper_r3d50().model, seed=0)
    assert round(count(network.branch("fused")) / 1e6, 1) == 83.1
    assert round((count(network.heads["rgb"]) + count(network.heads["logmel"])) / 1e6, 1) == 1.6
    # 4096 to 2048 to 2048 to 400, with biases, by hand.
    assert count(network.heads["fused"]) == 4096 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 400 + 400


def test_mid_concatenation_saves_what_the_paper_says_it_saves():
    config = replace(paper_r3d50().model, fusion="mid", fused_hidden=1024)
    with torch.device("meta"):
        network = make_model(("rgb", "logmel"), 400, config, seed=0)
    millions = count(network.branch("fused")) / 1e6
    assert round(millions) == 52
    assert int(100 * (1 - millions / 83.1)) == 37


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_weights_that_no_trunk_would_read_are_refused():
    config = replace(tiny_config().model, audio_weights="resnet18.pth")
    with pytest.raises(ValueError, match=r"model\.audio_weights are for a 2D trunk, and none of rgb, flow has one"):
        make_model(("rgb", "flow"), 3, config, seed=0)


def test_a_network_for_a_modality_that_the_run_does_not_have_is_refused():
    config = ModelConfig(encoders=EncodersConfig(flow="somewhere:network", other={"touch": "somewhere:network"}))
    with pytest.raises(ValueError, match=r"for flow, touch, and the run's modalities are rgb, logmel; leave it out"):
        make_model(("rgb", "logmel"), 3, config, seed=0)


def test_without_a_mask_every_clip_has_everything():
    network = model().eval()
    with torch.no_grad():
        found, expected = network(inputs()), network(inputs(), present())
    assert all(torch.equal(found[head], expected[head]) for head in HEADS)


def test_encoders_and_heads_of_a_users_own_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="the encoder of sound needs an attribute output_dim"):
        BlendModel(encoders={"sound": torch.nn.Linear(2, 3)}, heads={"sound": torch.nn.Linear(3, 4)})
    with pytest.raises(ValueError, match="head sound has no encoder"):
        BlendModel(encoders={}, heads={"sound": torch.nn.Linear(3, 4)})
