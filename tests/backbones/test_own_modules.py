"""A module of the user's as a backbone."""

import numpy as np
import pytest
import torch
from tiny_networks import SQUARE, ThreeBlocks, normalised, outputs_of, pictures, split
from torch import nn

from pipeline.backbones import load_backbone
from pipeline.errors import OptionError, UnknownNameError
from pipeline.spec import Preprocessing

ADVICE = (
    "Give the names of the submodules to tap (layers=['conv2', 'fc1']), and how it wants its "
    "pictures (preprocess=Preprocessing(image_size=(64, 64), mean=..., std=...))."
)


def test_a_module_with_layers_and_preprocessing_is_a_backbone():
    module = ThreeBlocks()
    backbone = load_backbone(module, layers=["low", "high", "top"], preprocess=SQUARE, name="mine")
    assert backbone.name == backbone.spec().backbone == "mine"
    assert backbone.network.weights == "module"
    assert {name: (layer.width, layer.axes) for name, layer in backbone.layers.items()} == {
        "low": (8, "BCHW"),
        "high": (16, "BCHW"),
        "top": (5, "BD"),
    }
    outputs = outputs_of(module, backbone.layers, normalised(pictures(3), SQUARE))
    layers = split(backbone.embed(pictures(3)), backbone.layers)
    for name in ("low", "high"):
        np.testing.assert_allclose(layers[name], outputs[name].mean((2, 3)), atol=1e-5)
    np.testing.assert_allclose(layers["top"], outputs["top"], atol=1e-5)
    assert repr(backbone) == "<Backbone mine: 3 layers, 32 x 32 px>"


def test_its_name_is_its_class_unless_given():
    backbone = load_backbone(ThreeBlocks(), layers=["low"], preprocess=SQUARE)
    assert backbone.name == "threeblocks"


def test_it_is_put_into_eval_mode():
    module = ThreeBlocks().train()
    load_backbone(module, layers=["low"], preprocess=SQUARE)
    assert not any(child.training for child in module.modules())


def test_another_image_size_and_resize_rule_replace_its_own():
    backbone = load_backbone(
        ThreeBlocks(), layers=["low"], preprocess=SQUARE, image_size=48, resize="pad"
    )
    assert (backbone.preprocess.image_size, backbone.preprocess.resize) == ((48, 48), "pad")
    assert backbone.embed(pictures(1, (48, 48))).shape == (1, 8)


def test_a_module_of_another_dtype_is_computed_as_asked():
    module = ThreeBlocks().double()
    backbone = load_backbone(module, layers=["low"], preprocess=SQUARE)
    single = load_backbone(ThreeBlocks(), layers=["low"], preprocess=SQUARE)
    np.testing.assert_allclose(
        backbone.embed(pictures(2)), single.embed(pictures(2)), rtol=1e-5, atol=1e-6
    )
    assert backbone.weights_digest != single.weights_digest


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"preprocess": SQUARE}, "layers"),
        ({"preprocess": SQUARE, "layers": []}, "layers"),
        ({"layers": ["low"]}, "preprocess"),
        ({}, "layers"),
    ],
)
def test_layers_and_preprocessing_are_both_needed(given, missing):
    with pytest.raises(OptionError) as error:
        load_backbone(ThreeBlocks(), **given)
    assert str(error.value) == f"a module of your own came without {missing}. {ADVICE}"


def test_an_unknown_submodule_is_refused_with_its_nearest():
    with pytest.raises(UnknownNameError) as error:
        load_backbone(ThreeBlocks(), layers=["low", "hihg"], preprocess=SQUARE)
    assert str(error.value).startswith("unknown layer 'hihg'. Did you mean 'high'? Accepted: low, ")


@pytest.mark.parametrize("name", ["a/b", "a,b"])
def test_a_submodule_whose_name_no_cache_can_hold_is_refused(name):
    module = nn.ModuleDict({name: nn.Conv2d(3, 4, 1)})
    with pytest.raises(OptionError) as error:
        load_backbone(module, layers=[name], preprocess=SQUARE)
    assert str(error.value) == (
        f"the submodule {name!r} cannot be a layer, whose name holds no '/' and no ','. "
        "Rename it in the module, or tap another."
    )


def test_a_name_that_a_list_of_names_would_split_is_refused():
    with pytest.raises(OptionError) as error:
        load_backbone(ThreeBlocks(), layers=["low"], preprocess=SQUARE, name="one,two")
    assert str(error.value) == (
        "a backbone cannot be called 'one,two': a comma divides the names of several. "
        "Give another name."
    )


@pytest.mark.parametrize(
    "options", [{"name": "mine"}, {"layers": ["low"]}, {"preprocess": Preprocessing()}]
)
def test_what_describes_a_module_is_refused_for_a_name(options):
    with pytest.raises(OptionError) as error:
        load_backbone("timm/test_resnet", **options)
    assert str(error.value) == (
        "name, layers and preprocess describe a module of your own; 'timm/test_resnet' brings "
        "them itself. Leave them out."
    )


def flip(module):
    with torch.no_grad():
        module.high[0].weight[3, 2, 1, 0] += 1e-6


def count(module):
    module.low[1].num_batches_tracked += 1


def recast(module):
    module.double()


@pytest.mark.parametrize("change", [flip, count, recast])
def test_the_weights_digest_covers_every_tensor(change):
    module = ThreeBlocks()
    change(module)
    before, after = (
        load_backbone(item, layers=["low"], preprocess=SQUARE) for item in (ThreeBlocks(), module)
    )
    assert before.weights_digest != after.weights_digest
    assert before.spec().difference(after.spec())[0].startswith("weights_digest is ")


def test_the_weights_digest_knows_every_value_of_every_tensor():
    from pipeline.backbones.checkpoint import weights_digest

    module = ThreeBlocks()
    digests = {weights_digest(module)}
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.view(-1)[-1] += 1
            digests.add(weights_digest(module))
    assert len(digests) == len(module.state_dict()) + 1


def test_the_weights_digest_is_of_values_not_of_memory():
    from pipeline.backbones.checkpoint import weights_digest

    last = ThreeBlocks().to(memory_format=torch.channels_last)
    assert weights_digest(last) == weights_digest(ThreeBlocks())
    half = ThreeBlocks().bfloat16()
    assert weights_digest(half) != weights_digest(ThreeBlocks())
