"""Taps of a network against hooks of our own, on maps, tokens and vectors."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models.convit import ConVit
from tiny_networks import (
    SQUARE,
    ThreeBlocks,
    cosines,
    eager,
    normalised,
    outputs_of,
    pictures,
    random_backbone,
    split,
)
from torch import nn

from pipeline.backbones import Backbone, Layer, choose_layers, full_name, load_backbone
from pipeline.backbones.engines import make_engine
from pipeline.backbones.graph import EmbeddingGraph
from pipeline.backbones.network import Network, axes_of
from pipeline.errors import BackboneError, OptionError, UnknownNameError
from pipeline.spec import Preprocessing


def crops_of_timm(module, count=4):
    """Crops that timm itself makes of photos with PIL, as 8 bits and as network input."""
    config = timm.data.resolve_model_data_config(module)
    resize, crop, *rest = timm.data.create_transform(**config, is_training=False).transforms
    photos = [Image.fromarray(picture) for picture in pictures(count, (190, 250))]
    crops = [crop(resize(photo)) for photo in photos]
    tensors = []
    for picture in crops:
        for step in rest:
            picture = step(picture)
        tensors.append(picture)
    return np.stack([np.asarray(picture) for picture in crops]), torch.stack(tensors)


def maps_pooled(outputs):
    """Mean over the maps of every tap; a vector as it is."""
    return {
        tap: output.mean((2, 3)) if output.ndim == 4 else output for tap, output in outputs.items()
    }


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet"])
def test_layers_equal_hooks_on_timms_own_preprocessing(model):
    backbone = random_backbone(f"timm/{model}")
    module = backbone.network.module
    crops, inputs = crops_of_timm(module)
    taps = {**{tap: tap for tap in backbone.layers}, "features": ""}
    expected = maps_pooled(outputs_of(module, taps.values(), inputs))
    for vectors, bound in [
        (backbone.embed(crops), 0.999_999),
        (eager(backbone).embed(crops), 0.999_999),
        (eager(backbone, "bfloat16").embed(crops[:1]), 0.995),
    ]:
        for tap, layer in split(vectors, backbone.layers).items():
            assert cosines(layer, expected[taps[tap]][: len(layer)]).min() >= bound, tap


def test_tokens_give_the_class_token_and_the_mean_of_the_patches():
    backbone = random_backbone("timm/test_vit")
    crops, inputs = crops_of_timm(backbone.network.module)
    names = [f"blocks.{block}" for block in range(6)]
    outputs = outputs_of(backbone.network.module, [*names, ""], inputs)
    assert backbone.pooling == "cls,mean"
    assert list(backbone.layers)[:3] == ["blocks.0.cls", "blocks.0.mean", "blocks.1.cls"]
    for vectors, bound in [
        (backbone.embed(crops), 0.999_999),
        (eager(backbone, "bfloat16").embed(crops), 0.995),
    ]:
        layers = split(vectors, backbone.layers)
        for name in names:
            assert cosines(layers[f"{name}.cls"], outputs[name][:, 0]).min() >= bound
            assert cosines(layers[f"{name}.mean"], outputs[name][:, 1:].mean(1)).min() >= bound
        assert cosines(layers["features"], outputs[""]).min() >= bound


def test_registers_are_left_out_where_there_is_no_class_token():
    backbone = random_backbone("timm/test_vit2")
    inputs = normalised(pictures(2, (160, 160)), backbone.preprocess)
    tokens = outputs_of(backbone.network.module, ["blocks.3"], inputs)["blocks.3"]
    assert backbone.network.prefix_tokens == 1
    assert tokens.shape[1] == 101
    assert backbone.pooling == "mean"
    vectors = eager(backbone).embed(pictures(2, (160, 160)))
    layer = split(vectors, backbone.layers)["blocks.3.mean"]
    np.testing.assert_allclose(layer, tokens[:, 1:].mean(1), atol=1e-5)
    with pytest.raises(OptionError, match="pooling cls needs a class token, and this network has"):
        load_backbone("timm/test_vit2", weights=None, pooling="cls")


def test_blocks_below_the_class_token_have_none():
    module = ConVit(
        img_size=32, patch_size=8, embed_dim=12, depth=3, num_heads=4, local_up_to_layer=2,
        num_classes=0,
    )  # fmt: skip
    taps = {f"blocks.{block}": f"blocks.{block}" for block in range(3)}
    network = Network(module, taps, SQUARE, prefix_tokens=1, class_token=True)
    backbone = Backbone("convit", network)
    outputs = outputs_of(module, taps, normalised(pictures(2), SQUARE))
    assert [output.shape[1] for output in outputs.values()] == [16, 16, 17]
    assert list(backbone.layers) == [
        "blocks.0.mean", "blocks.1.mean", "blocks.2.cls", "blocks.2.mean",
    ]  # fmt: skip
    expected = [
        outputs["blocks.0"].mean(1), outputs["blocks.1"].mean(1),
        outputs["blocks.2"][:, 0], outputs["blocks.2"][:, 1:].mean(1),
    ]  # fmt: skip
    np.testing.assert_allclose(backbone.embed(pictures(2)), np.hstack(expected), atol=1e-4)


def test_maps_with_channels_last_are_pooled_over_their_sides():
    backbone = random_backbone("timm/test_mambaout")
    size = backbone.preprocess.image_size
    inputs = normalised(pictures(2, size), backbone.preprocess)
    maps = outputs_of(backbone.network.module, ["stages.1"], inputs)["stages.1"]
    assert backbone.layers["stages.1"].axes == "BHWC"
    layer = split(backbone.embed(pictures(2, size)), backbone.layers)["stages.1"]
    np.testing.assert_allclose(layer, maps.mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "mean+max", "gem", "grid2", "grid4"])
def test_the_graph_pools_as_torch_does(pooling):
    backbone = own(pooling=pooling)
    packed = backbone.embed(pictures(3))
    np.testing.assert_allclose(packed, eager(backbone).embed(pictures(3)), rtol=1e-4, atol=1e-5)
    assert packed.shape[1] == sum(layer.width for layer in backbone.layers.values())


def own(layers=("low", "middle", "high", "top"), **options):
    options = {"preprocess": SQUARE} | options
    return load_backbone(ThreeBlocks(), layers=list(layers), **options)


def test_several_poolings_of_a_map_are_several_layers():
    backbone = own(("middle", "top"), pooling="mean,max")
    assert list(backbone.layers) == ["middle.mean", "middle.max", "top"]
    inputs = normalised(pictures(2), SQUARE)
    maps = outputs_of(backbone.network.module, ["middle"], inputs)["middle"]
    layers = split(backbone.embed(pictures(2)), backbone.layers)
    np.testing.assert_allclose(layers["middle.mean"], maps.mean((2, 3)), atol=1e-5)
    np.testing.assert_allclose(layers["middle.max"], maps.max((2, 3)), atol=1e-5)


def test_layers_stand_in_the_order_in_which_they_run():
    assert list(own(("top", "low", "high")).layers) == ["low", "high", "top"]


def test_some_layers_are_the_same_numbers_as_all():
    backbone = own()
    everything = split(backbone.embed(pictures(3)), backbone.layers)
    for request, names in [("middle", ["middle"]), (["top", "low"], ["low", "top"])]:
        some = backbone.embed(pictures(3), request)
        np.testing.assert_array_equal(some, np.hstack([everything[name] for name in names]))


@pytest.mark.parametrize("make", [lambda b: b.engine("low,middle", precision="float32"),
                                  lambda b: eager(b, layers=["low", "middle"])])  # fmt: skip
def test_nothing_above_the_deepest_layer_is_computed(make):
    expected = own().embed(pictures(2), "low,middle")
    backbone = own()
    backbone.network.module.forbidden = True
    np.testing.assert_allclose(make(backbone).embed(pictures(2)), expected, atol=1e-6)
    with pytest.raises(AssertionError, match="the upper half was computed"):
        backbone.engine("high", precision="float32")


def test_of_a_module_that_runs_twice_the_first_output_counts():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv2d(3, 3, 1)

        def forward(self, pictures):
            return self.mix(self.mix(pictures)).mean((2, 3))

    backbone = load_backbone(Twice(), layers=["mix"], preprocess=SQUARE)
    inputs = normalised(pictures(2), SQUARE)
    with torch.no_grad():
        expected = backbone.network.module.mix(inputs).numpy().mean((2, 3))
    np.testing.assert_allclose(backbone.embed(pictures(2)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "image_size", "axes"),
    [
        ((1, 64, 7, 7), (224, 224), "BCHW"),
        ((1, 7, 7, 64), (224, 224), "BHWC"),
        ((1, 7, 7, 7), (224, 224), "BCHW"),
        ((1, 8, 8, 12), (64, 96), "BCHW"),
        ((1, 8, 12, 12), (64, 96), "BHWC"),
        ((1, 64, 1, 1), (64, 96), "BCHW"),
        ((1, 50, 64), (224, 224), "BTD"),
        ((1, 64), (224, 224), "BD"),
        ((1, 2, 3, 4, 5), (224, 224), None),
        ((), (224, 224), None),
    ],
)
def test_axes_are_told_by_the_proportions_of_the_picture(shape, image_size, axes):
    assert axes_of(shape, image_size) == axes


def test_pictures_need_not_be_square():
    backbone = own(preprocess=Preprocessing(image_size=(24, 48)))
    assert {layer.axes for layer in backbone.layers.values()} == {"BCHW", "BD"}
    assert backbone.embed(pictures(2, (24, 48))).shape == (2, 8 + 12 + 16 + 5)


def test_a_tap_that_gives_no_map_is_refused():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = nn.LSTM(3, 4, batch_first=True)
            self.flat = nn.Flatten(0)

        def forward(self, pictures):
            self.flat(pictures)
            return self.pair(pictures.flatten(2).transpose(1, 2))[0]

    with pytest.raises(BackboneError) as error:
        load_backbone(Pairs(), layers=["pair"], preprocess=SQUARE)
    assert str(error.value) == (
        "layer 'pair' gives no tensor, but a tap must give a map (B, C, H, W), tokens (B, T, D) "
        "or a vector (B, D). Name another module."
    )
    with pytest.raises(BackboneError, match=r"layer 'flat' gives \(3072,\), but a tap must give"):
        load_backbone(Pairs(), layers=["flat"], preprocess=SQUARE)


def test_a_picture_that_the_network_cannot_take_is_refused():
    with pytest.raises(BackboneError) as error:
        load_backbone(nn.Sequential(nn.Linear(7, 2)), layers=["0"], preprocess=SQUARE)
    assert str(error.value).startswith("the network cannot take a 32 x 32 picture: mat1 and mat2")
    assert str(error.value).endswith(". Give it the image size it was made for.")


def taps(widths):
    return {f"s{n}": Layer(f"s{n}", width, "BCHW", f"s{n}", "mean") for n, width in widths.items()}


def test_auto_takes_all_layers_while_they_are_narrow():
    assert choose_layers(taps({1: 2000, 2: 2096}), "auto") == ("s1", "s2")


def test_auto_takes_four_evenly_spaced_modules_and_the_last_where_they_are_wide():
    names = choose_layers(taps(dict.fromkeys(range(1, 14), 1000)), "auto")
    assert names == ("s3", "s6", "s9", "s12", "s13")
    assert choose_layers(taps({1: 4096, 2: 1}), "auto") == ("s1", "s2")


def test_auto_keeps_both_layers_of_a_block():
    layers = {
        f"{block}.{kind}": Layer(f"{block}.{kind}", 500, "BTD", str(block), kind)
        for block in range(12)
        for kind in ("cls", "mean")
    }
    names = choose_layers(layers, "auto")
    assert names == tuple(
        f"{block}.{kind}" for block in (2, 5, 7, 10, 11) for kind in ("cls", "mean")
    )


def test_names_may_carry_their_backbone_and_come_in_any_order():
    request = ["net/s3", " s1"]
    assert choose_layers(taps({1: 1, 2: 1, 3: 1}), request, "net") == ("s1", "s3")
    assert full_name("timm/net", "s1") == "timm/net/s1"


def test_an_unknown_layer_is_refused_with_its_nearest():
    with pytest.raises(UnknownNameError) as error:
        own().engine("low,midle")
    assert str(error.value) == (
        "unknown layer 'midle'. Did you mean 'middle'? Accepted: low, middle, high, top."
    )


@pytest.mark.parametrize("nothing", ["", []])
def test_naming_no_layer_is_refused(nothing):
    with pytest.raises(OptionError) as error:
        choose_layers(taps({1: 1}), nothing)
    assert str(error.value) == ("no layer was named. Use auto, all, or names joined by a comma.")


UNPOOLED = {
    "timm/test_resnet": [("layer1", "BCHW"), ("layer3", "BCHW")],
    "timm/test_vit": [("blocks.0", "BTD"), ("norm", "BTD")],
}


def unpooled(name):
    """Layers that keep every value, a pooled one between them, and what hooks see of all."""
    backbone = random_backbone(name)
    batch = pictures(5, backbone.preprocess.image_size)
    modules = [module for module, _ in UNPOOLED[name]]
    seen = outputs_of(backbone.network.module, modules, normalised(batch, backbone.preprocess))
    layers = {
        module: Layer(f"{module}.values", int(np.prod(seen[module].shape[1:])), axes, module)
        for module, axes in UNPOOLED[name]
    }
    low, high = layers.values()
    pooled = next(layer for layer in backbone.layers.values() if layer.module == low.module)
    return backbone, batch, {"low": low, "pooled": pooled, "high": high}, seen


@pytest.mark.parametrize("name", UNPOOLED)
def test_a_layer_without_pooling_holds_bit_for_bit_what_a_hook_sees(name):
    backbone, batch, layers, _ = unpooled(name)
    graph = EmbeddingGraph(backbone.network, list(layers.values()))
    modules = [layers["low"].module, layers["high"].module]
    seen = {}
    for module in modules:
        graph.module.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, module=module: seen.update({module: output.clone()})
        )
    with torch.no_grad():
        columns = split(graph(torch.from_numpy(batch)).numpy(), layers)
    for place, module in zip(("low", "high"), modules, strict=True):
        values = seen[module].numpy()
        np.testing.assert_array_equal(columns[place].reshape(values.shape), values)


@pytest.mark.parametrize("name", UNPOOLED)
def test_openvino_gives_a_layer_without_pooling_within_rounding(name):
    backbone, batch, layers, seen = unpooled(name)
    engine = make_engine(backbone.network, list(layers.values()), device="cpu", precision="float32")
    assert engine.name == "openvino"
    columns = split(engine.embed(batch), layers)
    for place in ("low", "high"):
        values = seen[layers[place].module]
        got = columns[place].reshape(values.shape)
        np.testing.assert_allclose(got, values, rtol=1e-3, atol=1e-4 * np.abs(values).max())
    alone = eager(backbone, layers=[layers["pooled"].name]).embed(batch)
    np.testing.assert_allclose(columns["pooled"], alone, rtol=1e-3, atol=1e-4)
