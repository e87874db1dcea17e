"""A cut network: what is trained, what stays, and its top alone gives what all of it gives."""

from functools import cache

import numpy as np
import pytest
import torch
from tiny_networks import SQUARE, ThreeBlocks, eager, normalised, outputs_of, pictures
from torch import nn

from pipeline.backbones import Backbone, Cut, load_backbone
from pipeline.backbones.network import FEATURES, OUTPUT, Network
from pipeline.errors import OptionError

BATCH = pictures(5)
TAPS = ["low", "middle", "high", "top"]


@cache
def tiny(name):
    """A network for 32 x 32 pixels, whose normalisation does something: new ones add zeros."""
    if name == "own":
        return wrapped(ThreeBlocks(), TAPS)
    backbone = load_backbone(f"timm/test_{name}", weights=None, image_size=32)
    generator = torch.Generator().manual_seed(7)
    for module in backbone.network.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.normal_(module.weight, 1, 0.2, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return backbone


def wrapped(module, layers):
    return load_backbone(module, layers=layers, preprocess=SQUARE)


def cut(backbone, n_blocks, layers=None):
    return Cut(backbone, layers or list(backbone.layers), n_blocks)


def entering(cut, backbone, batch=BATCH):
    """What comes out at the boundary, by a hook of torch alone."""
    name = cut.entrance.module
    inputs = normalised(batch, backbone.preprocess)
    return torch.from_numpy(outputs_of(cut.module, [name], inputs)[name])


# What is trained


def test_blocks_are_the_tapped_modules_bottom_to_top_without_the_output():
    assert tiny("resnet").blocks() == ("layer1", "layer2", "layer3", "layer4")
    assert tiny("vit").blocks() == tuple(f"blocks.{place}" for place in range(6))
    assert tiny("efficientnet").blocks() == tuple(f"blocks.{place}" for place in range(5))
    assert tiny("own").blocks() == tuple(TAPS)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("resnet", [["layer4."], ["layer3."], ["layer2."], ["layer1.", "conv1.", "bn1."]]),
        (
            "vit",
            [
                ["blocks.5.", "norm."], ["blocks.4."], ["blocks.3."], ["blocks.2."], ["blocks.1."],
                ["blocks.0.", "patch_embed.", "cls_token", "pos_embed"],
            ],
        ),
        (
            "efficientnet",
            [
                ["blocks.4.", "conv_head.", "bn2."], ["blocks.3."], ["blocks.2."], ["blocks.1."],
                ["blocks.0.", "conv_stem.", "bn1."],
            ],
        ),
        ("own", [["top."], ["high."], ["middle."], ["low."]]),
    ],
)  # fmt: skip
def test_what_follows_the_top_block_belongs_to_it_and_what_precedes_the_lowest_to_that(
    name, levels
):
    names = [key for key, _ in tiny(name).network.module.named_parameters()]
    for n_blocks in {1, 2, len(levels)}:
        expected = {
            key: depth
            for depth, prefixes in enumerate(levels[:n_blocks])
            for key in names
            if key.startswith(tuple(prefixes))
        }
        found = cut(tiny(name), n_blocks)
        assert found.trained == expected
        free = {key for key, own in found.module.named_parameters() if own.requires_grad}
        assert free == set(expected)
    assert set(expected) == set(names)  # with all blocks


@pytest.mark.parametrize("name", ["resnet", "vit", "efficientnet", "own"])
@pytest.mark.parametrize("alone", [False, True], ids=["all of it", "top alone"])
def test_a_step_leaves_everything_below_and_all_statistics_bit_for_bit(name, alone):
    own = cut(tiny(name), 2)
    before = {key: value.clone() for key, value in own.module.state_dict().items()}
    buffers = {key for key, _ in own.module.named_buffers()}
    optimizer = torch.optim.AdamW(own.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        if alone:
            width = sum(layer.width for layer in own.below)
            found = own.resume(entering(own, tiny(name)), torch.zeros(len(BATCH), width))
        else:
            found = own(torch.from_numpy(BATCH))
        found.square().sum().backward()
        optimizer.step()
    for key, value in own.module.state_dict().items():
        assert torch.equal(value, before[key]) == (key not in own.trained), key
    assert not buffers & set(own.trained)
    assert not any(module.training for module in own.modules())


def test_layers_that_end_below_the_top_are_counted_from_there():
    own = cut(tiny("resnet"), 1, ["layer1", "layer2", "layer3"])
    assert own.trained
    assert all(key.startswith("layer3.") for key in own.trained)
    assert (own.entrance.module, own.entrance_shape) == ("layer2", (48, 4, 4))
    assert [layer.name for layer in own.below] == ["layer1", "layer2"]
    assert [layer.name for layer in own.above] == ["layer3"]
    found = own(torch.from_numpy(BATCH))
    whole = eager(tiny("resnet"), layers=["layer1", "layer2", "layer3"]).embed(BATCH)
    np.testing.assert_allclose(found.detach(), whole, atol=1e-5)


def test_a_layer_that_is_not_asked_for_still_is_a_block():
    own = cut(tiny("own"), 2, ["low", "top"])
    assert set(own.trained) == {"high.0.weight", "high.0.bias", "top.weight", "top.bias"}
    assert (own.entrance.module, own.entrance_shape) == ("middle", (12, 8, 8))
    assert [layer.name for layer in own.below] == ["low"]


class Shared(nn.Module):
    """Two blocks of the same weights, and one of its own above."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.low = nn.Conv2d(3, 4, 3, 2, 1)
        self.middle = nn.Conv2d(4, 4, 3, 1, 1)
        self.high = nn.Conv2d(4, 4, 3, 1, 1, bias=False)
        self.high.weight = self.middle.weight
        self.top = nn.Linear(4, 2)

    def forward(self, pictures):
        maps = torch.relu(self.middle(torch.relu(self.low(pictures))))
        return self.top(torch.relu(self.high(maps)).mean((2, 3)))


def test_weights_that_two_blocks_share_belong_to_the_lower_one():
    backbone = wrapped(Shared(), TAPS)
    assert set(cut(backbone, 2).trained) == {"top.weight", "top.bias"}
    assert cut(backbone, 3).trained == {
        "top.weight": 0, "top.bias": 0, "middle.weight": 2, "middle.bias": 2,
    }  # fmt: skip
    two = cut(backbone, 2)
    two(torch.from_numpy(BATCH)).sum().backward()
    assert two.module.middle.weight.grad is None
    assert two.module.top.weight.grad.abs().sum() > 0


class Idle(ThreeBlocks):
    """Has weights that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(3, 3)


def test_weights_that_no_layer_depends_on_are_not_trained():
    assert not any(key.startswith("idle") for key in cut(wrapped(Idle(), TAPS), 4).trained)


# What it gives


@pytest.mark.parametrize("name", ["resnet", "vit", "efficientnet", "own"])
@pytest.mark.parametrize("n_blocks", [1, 3, "all"])
def test_all_of_it_gives_the_embedding_of_the_backbone(name, n_blocks):
    backbone = tiny(name)
    own = cut(backbone, len(backbone.blocks()) if n_blocks == "all" else n_blocks)
    found = own(torch.from_numpy(BATCH))
    np.testing.assert_allclose(found.detach(), eager(backbone).embed(BATCH), rtol=1e-5, atol=1e-5)
    if n_blocks == "all":
        assert (own.entrance, own.entrance_shape, own.below) == (None, (), ())


@pytest.mark.parametrize("name", ["resnet", "vit", "efficientnet", "own"])
@pytest.mark.parametrize("n_blocks", [1, 2])
def test_the_top_alone_gives_the_same_values_and_gradients(name, n_blocks):
    own = cut(tiny(name), n_blocks)
    width = sum(layer.width for layer in own.below)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 1)).astype(np.float32))

    def gradients(found):
        own.zero_grad()
        (weights * found.square()).sum().backward()
        return {key: value.grad.clone() for key, value in own.module.named_parameters()
                if value.grad is not None}  # fmt: skip

    whole = own(torch.from_numpy(BATCH))
    expected = gradients(whole)
    enters = entering(own, tiny(name))
    assert enters.shape[1:] == own.entrance_shape
    resumed = own.resume(enters, whole[:, :width].detach())
    np.testing.assert_allclose(resumed.detach(), whole.detach(), rtol=1e-5, atol=1e-5)
    found = gradients(resumed)
    assert found.keys() == expected.keys() == own.trained.keys()
    for key, value in found.items():
        size = float(expected[key].abs().max())
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5 * max(size, 1e-3))


def test_the_values_of_the_entrance_are_those_of_the_boundary_in_their_order():
    backbone = tiny("own")
    own = cut(backbone, 2)
    tapped = backbone.tapped_also(own.entrance)
    assert list(tapped.layers) == ["low", "middle", "middle.whole", "high", "top"]
    assert list(backbone.layers) == TAPS
    values = eager(tapped, layers=["middle.whole"]).embed(BATCH)
    maps = values.reshape(5, *own.entrance_shape)
    np.testing.assert_allclose(maps, entering(own, backbone), atol=1e-5)


class Skipping(ThreeBlocks):
    """What the lowest block gives goes past the others."""

    def __init__(self):
        super().__init__()
        self.past = nn.Conv2d(8, 16, 1, 4)

    def forward(self, pictures):
        low = self.low(pictures)
        return self.top((self.high(self.middle(low)) + self.past(low)).mean((2, 3)))


class Counting(ThreeBlocks):
    """Remembers how many pictures there are, below, and needs it above."""

    def forward(self, pictures):
        count = len(pictures)
        maps = self.high(self.middle(self.low(pictures)))
        return self.top(maps.reshape(count, 16, -1).mean(2))


@pytest.mark.parametrize("name", ["resnet", "vit", "efficientnet", "own"])
def test_a_network_of_one_block_after_the_other_resumes(name):
    assert cut(tiny(name), 2).resumes()


@pytest.mark.parametrize("module", [Skipping, Counting])
@pytest.mark.parametrize("n_blocks", [1, 2])
def test_a_network_in_which_something_passes_the_boundary_by_does_not(module, n_blocks):
    own = cut(wrapped(module(), TAPS), n_blocks)
    assert own.entrance is not None
    assert not own.resumes()


def test_a_passage_that_ends_or_begins_at_the_boundary_does_no_harm():
    backbone = wrapped(Skipping(), TAPS)
    assert cut(backbone, 3).resumes()  # it begins at the boundary
    inner = wrapped(Skipping(), ["low", "middle", "high"])
    assert cut(inner, 2).resumes()  # it ends above the highest layer


def test_without_a_boundary_there_is_nothing_to_resume():
    assert not cut(tiny("own"), 4).resumes()


def test_the_backbone_is_left_as_it_was():
    backbone = tiny("efficientnet")
    module = backbone.network.module
    before = {key: value.clone() for key, value in module.state_dict().items()}
    digest, free = backbone.weights_digest, [own.requires_grad for own in module.parameters()]
    own = cut(backbone, 2)
    own.resumes()
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    own(torch.from_numpy(BATCH)).sum().backward()
    optimizer.step()
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert [own.requires_grad for own in module.parameters()] == free
    assert all(own.grad is None for own in module.parameters())
    assert not any(child._forward_hooks for child in module.modules())
    assert backbone.with_module(module).weights_digest == digest
    assert backbone.with_module(own.module).weights_digest != digest


def test_it_leaves_the_gradient_mode_as_it_was():
    own = cut(tiny("own"), 2)
    own(torch.from_numpy(BATCH))
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert not own(torch.from_numpy(BATCH)).requires_grad
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert own(torch.from_numpy(BATCH)).is_inference()


# What is refused


@pytest.mark.parametrize("n_blocks", [0, 5, -1])
def test_as_many_blocks_as_there_are_can_be_trained(n_blocks):
    with pytest.raises(OptionError) as caught:
        cut(tiny("resnet"), n_blocks)
    assert str(caught.value) == (
        f"blocks is {n_blocks}, but timm/test_resnet has 4 up to the layer features: layer1, "
        "layer2, layer3, layer4. Give a number from 1 to 4."
    )
    with pytest.raises(OptionError) as caught:
        cut(tiny("resnet"), 3, ["layer1", "layer2"])
    assert str(caught.value) == (
        "blocks is 3, but timm/test_resnet has 2 up to the layer layer2: layer1, layer2. Give a "
        "number from 1 to 2."
    )


class Whole(nn.Module):
    """Tells nothing of its inside."""

    def __init__(self):
        super().__init__()
        self.all = nn.Linear(3, 2)

    def forward(self, pictures):
        return self.all(pictures.mean((2, 3)))


def test_a_backbone_that_is_nothing_but_an_output_has_no_blocks():
    backbone = Backbone("whole", Network(Whole(), {FEATURES: OUTPUT}, SQUARE))
    assert backbone.blocks() == ()
    with pytest.raises(OptionError) as caught:
        cut(backbone, 1)
    assert str(caught.value) == (
        "the backbone whole has no blocks: its only layer is its output, so nothing can be "
        "trained from the top. Take a backbone with several layers, or give a module of your own "
        "with layers=[...]."
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("vit_b_16", 32)])
def test_networks_of_torchvision_are_cut_alike(name, size):
    backbone = load_backbone(f"torchvision/{name}", weights=None, image_size=size)
    own = cut(backbone, 2)
    batch = pictures(3, (size, size))
    whole = own(torch.from_numpy(batch))
    np.testing.assert_allclose(whole.detach(), eager(backbone).embed(batch), rtol=1e-4, atol=1e-4)
    width = sum(layer.width for layer in own.below)
    resumed = own.resume(entering(own, backbone, batch), whole[:, :width].detach())
    np.testing.assert_allclose(resumed.detach(), whole.detach(), rtol=1e-4, atol=1e-4)
    assert own.resumes()
