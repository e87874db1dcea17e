"""Networks of torchvision: one of each family, their own preprocessing, no network."""

import numpy as np
import pytest
import torch
from tiny_networks import cosines, eager, normalised, outputs_of, pictures, split
from torchvision import models

from pipeline.backbones import load_backbone
from pipeline.errors import BackboneError

FAMILIES = {
    "resnet18": ["layer1", "layer2", "layer3", "layer4", "features"],
    "mobilenet_v2": ["features.1", "features.3", "features.6", "features.13", "features.18",
                     "features"],
    "convnext_tiny": ["features.1", "features.3", "features.5", "features.7", "features"],
    "squeezenet1_1": ["features.4", "features.7", "features.12"],
    "regnet_y_400mf": ["trunk_output.block1", "trunk_output.block2", "trunk_output.block3",
                       "trunk_output.block4", "features"],
}  # fmt: skip


LARGE = {"convnext_tiny", "regnet_y_400mf"}


@pytest.mark.parametrize(
    ("model", "taps"),
    [
        pytest.param(*item, marks=[pytest.mark.slow] * (item[0] in LARGE))
        for item in FAMILIES.items()
    ],
    ids=FAMILIES,
)
def test_layers_equal_hooks(model, taps):
    backbone = load_backbone(f"torchvision/{model}", weights=None, image_size=64)
    assert list(backbone.layers) == taps
    batch = pictures(2, (64, 64))
    modules = [tap if tap != "features" else "" for tap in taps]
    outputs = outputs_of(backbone.network.module, modules, normalised(batch, backbone.preprocess))
    layers = split(eager(backbone).embed(batch), backbone.layers)
    for tap, module in zip(taps, modules, strict=True):
        expected = outputs[module]
        expected = expected.mean((2, 3)) if expected.ndim == 4 else expected
        assert cosines(layers[tap], expected).min() > 0.999, tap


@pytest.mark.slow
def test_a_vision_transformer_gives_the_class_token_and_the_mean_of_the_patches():
    backbone = load_backbone("torchvision/vit_b_16", weights=None, image_size=64)
    assert backbone.pooling == "cls,mean"
    assert len(backbone.layers) == 25
    batch = pictures(2, (64, 64))
    name = "encoder.layers.encoder_layer_3"
    inputs = normalised(batch, backbone.preprocess)
    tokens = outputs_of(backbone.network.module, [name], inputs)[name]
    layers = split(eager(backbone).embed(batch), backbone.layers)
    np.testing.assert_allclose(layers[f"{name}.cls"], tokens[:, 0], atol=1e-4)
    np.testing.assert_allclose(layers[f"{name}.mean"], tokens[:, 1:].mean(1), atol=1e-4)


@pytest.mark.slow
def test_channels_last_windows_do_not_depend_on_the_batch():
    backbone = load_backbone("torchvision/swin_t", weights=None)
    assert backbone.layers["features.7"].axes == "BHWC"
    engine = backbone.engine(precision="float32")
    batch = pictures(7, (224, 224))
    pieces = [engine.embed(one[None]) for one in batch]
    np.testing.assert_array_equal(np.concatenate(pieces), engine.embed(batch))


def test_the_final_features_are_what_the_classifier_takes():
    backbone = load_backbone("torchvision/mobilenet_v2", weights=None, image_size=64)
    with torch.random.fork_rng():
        whole = models.get_model("mobilenet_v2", weights=None).eval()
    own = backbone.network.module
    missing = whole.load_state_dict(own.state_dict(), strict=False).missing_keys
    assert missing == ["classifier.1.weight", "classifier.1.bias"]
    batch = pictures(2, (64, 64))
    with torch.no_grad():
        expected = whole(normalised(batch, backbone.preprocess)).numpy()
    features = split(eager(backbone).embed(batch), backbone.layers)["features"]
    weight, bias = (tensor.detach().numpy() for tensor in whole.classifier[1].parameters())
    np.testing.assert_allclose(features @ weight.T + bias, expected, atol=1e-4)


@pytest.mark.parametrize("model", ["resnet18", "convnext_tiny", "swin_t", "vit_b_16"])
def test_the_preprocessing_is_that_of_the_default_weights(model):
    from pipeline.backbones.torchvision_models import _preprocessing

    weights = models.get_model_weights(model).DEFAULT
    preset = weights.transforms()
    preprocess = _preprocessing(weights)
    assert preprocess.image_size == (preset.crop_size[0],) * 2
    assert preprocess.resized_side() == (preset.resize_size[0],) * 2
    assert preprocess.interpolation == preset.interpolation.value
    assert (list(preprocess.mean), list(preprocess.std)) == (preset.mean, preset.std)


def test_a_file_with_a_classifier_gives_the_weights_below_it(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = models.get_model("squeezenet1_1", weights=None)
    torch.save(whole.state_dict(), tmp_path / "squeezenet.pth")
    backbone = load_backbone(
        "torchvision/squeezenet1_1", weights=tmp_path / "squeezenet.pth", image_size=64
    )
    for name, tensor in backbone.network.module.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BackboneError) as error:
        load_backbone("torchvision/resnet18")
    assert str(error.value).startswith(
        "the weights of torchvision/resnet18 are not on this machine and cannot be fetched ("
    )
    assert str(error.value).endswith(
        "). Give a file: --weights FILE.pth (weights=... in Python), or take a bundled backbone: "
        "efficientnet_lite0."
    )


def test_pretrained_position_embeddings_of_another_size_are_refused():
    with pytest.raises(BackboneError) as error:
        load_backbone("torchvision/vit_b_16", image_size=384)
    assert str(error.value).startswith("torchvision/vit_b_16 cannot take this image size: The ")
    assert str(error.value).endswith(". Leave --image-size out.")
