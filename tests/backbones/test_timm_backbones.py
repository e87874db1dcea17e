"""Networks of timm: their preprocessing, their blocks, other image sizes, no network."""

import numpy as np
import pytest
import timm
from tiny_networks import eager, normalised, outputs_of, pictures, random_backbone, split

from pipeline.backbones import load_backbone
from pipeline.errors import BackboneError


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "mobilenetv3_small_050"])
def test_the_preprocessing_is_timms(model):
    backbone = random_backbone(f"timm/{model}")
    config = timm.data.resolve_model_data_config(backbone.network.module)
    transform = timm.data.create_transform(**config, is_training=False).transforms
    preprocess = backbone.preprocess
    assert preprocess.image_size == tuple(transform[1].size)
    assert preprocess.resize == "crop"
    assert min(preprocess.resized_side()) == transform[0].size
    assert preprocess.interpolation == transform[0].interpolation.value
    np.testing.assert_allclose(preprocess.mean, transform[3].mean.numpy(), rtol=1e-6)
    np.testing.assert_allclose(preprocess.std, transform[3].std.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "taps"),
    [
        ("test_resnet", ["layer1", "layer2", "layer3", "layer4", "features"]),
        ("test_efficientnet", [*(f"blocks.{n}" for n in range(5)), "features"]),
        ("test_vit3", [*(f"blocks.{n}.mean" for n in range(9)), "features"]),
        ("test_convnext", [*(f"stages.{n}" for n in range(4)), "features"]),
        ("test_nfnet", [*(f"stages.{n}" for n in range(3)), "final_conv", "features"]),
        ("pit_ti_224", ["patch_embed", "features"]),  # its blocks give pairs
    ],
)  # fmt: skip
def test_the_blocks_are_the_taps(model, taps):
    assert list(random_backbone(f"timm/{model}").layers) == taps


@pytest.mark.slow
def test_the_stem_of_a_densely_connected_network_is_no_tap():
    assert list(random_backbone("timm/densenet121").layers) == [
        "features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5",
        "features",
    ]  # fmt: skip


def test_a_vision_transformer_takes_another_image_size():
    backbone = load_backbone("timm/test_vit", weights=None, image_size=64)
    assert backbone.preprocess.image_size == (64, 64)
    assert backbone.network.module.pos_embed.shape == (1, 17, 64)
    inputs = normalised(pictures(2, (64, 64)), backbone.preprocess)
    tokens = outputs_of(backbone.network.module, ["blocks.1"], inputs)["blocks.1"]
    vectors = eager(backbone, layers=["blocks.1.mean"]).embed(pictures(2, (64, 64)))
    np.testing.assert_allclose(vectors, tokens[:, 1:].mean(1), atol=1e-4)


def test_a_convolutional_network_takes_another_image_size_and_resize_rule():
    backbone = load_backbone("timm/test_resnet", weights=None, image_size=64, resize="squash")
    assert (backbone.preprocess.image_size, backbone.preprocess.resize) == ((64, 64), "squash")
    layers = split(eager(backbone).embed(pictures(2, (64, 64))), backbone.layers)
    inputs = normalised(pictures(2, (64, 64)), backbone.preprocess)
    maps = outputs_of(backbone.network.module, ["layer2"], inputs)["layer2"]
    np.testing.assert_allclose(layers["layer2"], maps.mean((2, 3)), atol=1e-4)


@pytest.mark.parametrize(
    ("image_size", "reason"),
    [
        (100, "Input height (100) should be divisible by patch size (16)"),
        (8, "Input and output sizes should be greater than 0, but got input (H: 10, W: 10) "
            "output (H: 0, W: 0)"),
    ],
)  # fmt: skip
def test_an_image_size_that_the_network_cannot_take_is_refused(image_size, reason):
    with pytest.raises(BackboneError) as error:
        load_backbone("timm/test_vit", weights=None, image_size=image_size)
    assert str(error.value) == (
        f"the network cannot take a {image_size} x {image_size} picture: {reason}. "
        "Give it the image size it was made for."
    )


def test_weights_that_cannot_be_fetched_are_one_sentence():
    with pytest.raises(BackboneError) as error:
        load_backbone("timm/resnet18")
    assert str(error.value).startswith(
        "the weights of timm/resnet18 are not on this machine and cannot be fetched ("
    )
    assert str(error.value).endswith(
        "). Give a file: --weights FILE.safetensors (weights=... in Python), or take a bundled "
        "backbone: efficientnet_lite0."
    )
