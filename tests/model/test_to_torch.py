"""A model as one torch module, and as an ONNX file: it answers what `predict` answers."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LinearRegression, LogisticRegression
from small_world import PREPROCESS, WIDTHS, EagerBackbone, SmallNet, pixels, write_pictures
from stores import model_of, store_of

from pipeline.backbones import load_backbone
from pipeline.cache import EmbeddingStore
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.embedding import embed
from pipeline.errors import InputError, OptionError
from pipeline.inputs import prepare
from pipeline.model import TransferModel
from pipeline.results import TargetResults
from pipeline.samples import SampleSet
from pipeline.training import train

N = 16
FLOAT32 = EmbedOptions(precision="float32")
DIGITS = Path(__file__).parent.parent.parent / "data" / "digits"


def small(name="small", seed=0, preprocess=PREPROCESS):
    own = load_backbone(SmallNet(seed), name=name, layers=list(WIDTHS), preprocess=preprocess)
    return EagerBackbone(name, own.network, own.pooling)


def tiny(name, image_size):
    own = load_backbone(name, weights=None, image_size=image_size)
    return EagerBackbone(name, own.network, own.pooling)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("photos"), range(N))


@pytest.fixture(scope="module")
def paths(photos):
    return sorted(photos.rglob("*.png"))


def prepared(paths, preprocess):
    """Pictures as the networks see them: a uint8 tensor (batch, height, width, 3)."""
    out = np.zeros((len(paths), *preprocess.image_size, 3), np.uint8)
    for path, slot in zip(paths, out, strict=True):
        prepare(np.array(Image.open(path).convert("RGB")), preprocess, slot)
    return torch.from_numpy(out)


def brightness(ids):
    """What a network can see of a picture, whatever its weights."""
    means = [pixels(int(Path(name).stem)).mean() for name in ids]
    return np.array(means)


def lights(ids):
    means = brightness(ids)
    return np.where(means > np.median(means), "bright", "dark")


def embedded(photos, backbones, cache):
    with embed(SampleSet.from_folder(photos), backbones, cache, options=FLOAT32) as store:
        layers = {name: store.values(name) for name in store.layers}
        return EmbeddingStore.from_arrays(
            layers, store.ids, {"light": lights(store.ids)}, specs=store.specs
        )


@pytest.fixture(scope="module")
def store(photos, tmp_path_factory):
    return embedded(photos, small(), tmp_path_factory.mktemp("cache") / "cache.h5")


def relabelled(store, values):
    layers = {name: store.values(name) for name in store.layers}
    return EmbeddingStore.from_arrays(layers, store.ids, {"target": values}, specs=store.specs)


def trained(store, **options):
    model = train(store, TrainOptions(**{"head": "ridge", "test_fraction": 0, **options}))
    model.given = {"small": small()}
    return model


def by_hand(store, layers, heads, backbones):
    """A model of heads that were fitted here, on layers in this order."""
    widths = {name: store.values(name).shape[1] for name in layers}
    results = {
        name: TargetResults("class" if hasattr(head, "classes_") else "number", {}, N, 0,
                            tuple(layers), "concat", type(head).__name__)
        for name, head in heads.items()
    }  # fmt: skip
    specs = {name: store.specs[name] for name in backbones}
    return TransferModel(specs, widths, heads, results, given=dict(backbones))


@pytest.mark.parametrize("fusion", ["concat", "last", "average", "late"])
def test_the_module_gives_the_probabilities_of_the_model(store, paths, fusion):
    model = trained(store, fusion=fusion)
    module = model.to_torch()
    pictures = prepared(paths, PREPROCESS)
    found = module(pictures)
    assert found.shape == (N, 2)
    np.testing.assert_allclose(found, model.predict_proba(paths), atol=1e-5)
    assert (model.classes_[found.argmax(1)] == model.predict(paths)).all()
    for row in (0, 7):  # whatever the batch
        np.testing.assert_allclose(module(pictures[row : row + 1])[0], found[row], atol=1e-6)


def test_a_number_is_a_number_a_picture(store, paths):
    model = trained(relabelled(store, brightness(store.ids) + 200), fusion="concat")
    found = model.to_torch()(prepared(paths, PREPROCESS))
    assert found.shape == (N,)
    np.testing.assert_allclose(found, model.predict(paths), rtol=1e-5)
    assert np.ptp(found.numpy()) > 10


def test_several_labels_are_a_probability_each(store, paths):
    tags = [
        "|".join(["all", *(["dark"] if light == "dark" else [])]) for light in lights(store.ids)
    ]
    options = {"target_kind": ("target=multilabel",), "fusion": "concat", "head": "logistic"}
    model = trained(relabelled(store, tags), **options)
    found = model.to_torch()(prepared(paths, PREPROCESS))
    assert model.classes_.tolist() == ["all", "dark"]
    np.testing.assert_allclose(found, model.predict_proba(paths), atol=1e-5)
    assert (found[:, 0] == 1).all()


def two_targets(store):
    """A class and a number."""
    layers = ["small/low", "small/top"]
    X, _ = store.matrix(layers)
    light = LogisticRegression(C=10).fit(X, lights(store.ids))
    mean = LinearRegression().fit(X, brightness(store.ids))
    return by_hand(store, layers, {"light": light, "mean": mean}, {"small": small()})


def test_several_targets_are_a_tuple_in_their_order(store, paths):
    model = two_targets(store)
    module = model.to_torch()
    light, mean = module(prepared(paths, PREPROCESS))
    assert module.targets == ("light", "mean")
    expected = model.predict(paths)
    assert (model.classes_["light"][light.argmax(1)] == expected["light"]).all()
    np.testing.assert_allclose(mean, expected["mean"], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def two_networks(photos, tmp_path_factory):
    """A model of two networks whose layers stand in turn."""
    backbones = [small(), small("other", seed=1, preprocess=replace(PREPROCESS, mean=(0.1,) * 3))]
    store = embedded(photos, backbones, tmp_path_factory.mktemp("two") / "cache.h5")
    layers = ["other/low", "small/low", "other/high", "small/top"]
    X, _ = store.matrix(layers)
    head = LogisticRegression(C=100).fit(X, lights(store.ids))
    return by_hand(store, layers, {"light": head}, {own.name: own for own in backbones})


def test_several_networks_look_at_the_same_pictures(two_networks, paths):
    found = two_networks.to_torch()(prepared(paths, PREPROCESS))
    np.testing.assert_allclose(found, two_networks.predict_proba(paths), atol=1e-5)


def test_networks_that_look_at_different_pictures_are_refused_with_what_they_look_at(two_networks):
    model = copy.copy(two_networks)
    own = replace(PREPROCESS, image_size=(40, 48), resize="squash")
    other = small("other", seed=1, preprocess=own)
    model.specs = model.specs | {"other": replace(model.specs["other"], preprocess=own)}
    model.given = {"small": small(), "other": other}
    vars(model).pop("backbones", None)
    with pytest.raises(OptionError) as caught:
        model.to_torch()
    assert str(caught.value) == (
        "a torch module takes one batch of pictures, but the networks of this model look at "
        "different ones (small: 32 x 32, crop to 0.8, bicubic; other: 40 x 48, squash, bicubic). "
        "Embed for all of them with the same --image-size and --resize squash, or train on the "
        "layers of one."
    )


def test_vectors_are_rounded_as_the_cache_rounds_them(store, paths):
    layers = ["small/high"]
    X, _ = store.matrix(layers)
    steep = LinearRegression().fit(X, X @ np.array([1e6, -1e6, 1e6, 0, 0, 0]))
    model = by_hand(store, layers, {"steep": steep}, {"small": small()})
    pictures = prepared(paths, PREPROCESS)
    rounded = model.to_torch()(pictures).numpy()
    np.testing.assert_allclose(rounded, model.predict(paths), atol=5)
    model.specs = {"small": replace(model.specs["small"], store_dtype="float32")}
    exact = model.to_torch()(pictures).numpy()
    np.testing.assert_allclose(exact, model.predict(paths), atol=5)
    assert np.abs(rounded - exact).max() > 50


def test_the_module_is_frozen_and_shares_nothing_with_the_model(store, paths):
    model = trained(store, fusion="concat")
    network = model.backbones["small"].network.module
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    module = model.to_torch()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not module.training
    assert not any(child.training for child in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    expected = model.predict_proba(paths)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    np.testing.assert_array_equal(model.predict_proba(paths), expected)


def test_the_module_copies_and_pickles(store, paths):
    module, pictures = trained(store, fusion="concat").to_torch(), prepared(paths[:2], PREPROCESS)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(pictures), module(pictures))


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        (torch.zeros(2, 32, 32, 3), "float32 of shape (2, 32, 32, 3)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "uint8 of shape (2, 3, 32, 32)"),
        (torch.zeros(2, 40, 32, 3, dtype=torch.uint8), "uint8 of shape (2, 40, 32, 3)"),
        (torch.zeros(32, 32, 3, dtype=torch.uint8), "uint8 of shape (32, 32, 3)"),
    ],
)
def test_another_batch_is_refused(store, batch, what):
    with pytest.raises(InputError) as caught:
        trained(store, fusion="last").to_torch()(batch)
    assert str(caught.value) == (
        f"a batch must be uint8 of shape (batch, 32, 32, 3), but this one is {what}. "
        "Resize the pictures, and do not normalise them."
    )


def test_a_head_that_is_not_linear_is_refused_by_its_target_before_a_network_is_built(store):
    model = trained(store, head="knn", fusion="last")
    with pytest.raises(OptionError) as caught:
        model.to_torch()
    assert str(caught.value) == (
        "the head knn of target 'light' is not linear in the layers: it has no decision_function. "
        "Linear are logistic, ridge, layer_ridge, svm, lda, linear, and what of scikit-learn "
        "predicts from linear scores. Train with one of them."
    )
    assert "backbones" not in vars(model)


def test_a_model_of_vectors_has_no_network_to_put_into_a_module():
    with pytest.raises(OptionError, match=r"was trained on vectors computed elsewhere \('net'\)"):
        model_of(store_of()).to_torch()


def exported(module, pictures, path):
    """An ONNX file of any batch size, opened in onnxruntime."""
    torch.onnx.export(
        module, (pictures,), path, dynamo=True, verbose=False, external_data=False,
        input_names=["pictures"], dynamic_shapes=[{0: torch.export.Dim("batch")}],
    )  # fmt: skip
    return onnxruntime.InferenceSession(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_size"),
    [("timm/test_resnet", 64), ("timm/test_vit", 32), ("timm/test_efficientnet", 64)],
)
def test_onnx_files_of_convolutions_and_transformers_answer_as_the_model(
    photos, paths, tmp_path, name, image_size
):
    backbone = tiny(name, image_size)
    store = embedded(photos, backbone, tmp_path / "cache.h5")
    model = train(store, TrainOptions(head="logistic", fusion="concat", test_fraction=0))
    model.given = {name: backbone}
    pictures = prepared(paths, backbone.preprocess)
    session = exported(model.to_torch(), pictures[:2], tmp_path / "model.onnx")
    expected = model.predict_proba(paths)
    for batch in (slice(0, 1), slice(0, 2), slice(3, N)):
        (found,) = session.run(None, {"pictures": pictures[batch].numpy()})
        np.testing.assert_allclose(found, expected[batch], atol=1e-3)
    assert np.ptp(expected[:, 0]) > 0.1


def test_an_onnx_file_holds_every_target_and_nothing_above_the_deepest_layer(
    store, paths, tmp_path
):
    model = two_targets(store)
    pictures = prepared(paths, PREPROCESS)
    session = exported(model.to_torch(), pictures[:2], tmp_path / "two.onnx")
    light, mean = session.run(None, {"pictures": pictures.numpy()})
    found = model.to_torch()(pictures)
    np.testing.assert_allclose(light, found[0], atol=1e-4)
    np.testing.assert_allclose(mean, found[1], rtol=1e-3, atol=1e-3)
    low = trained(store, fusion="single:low")
    exported(low.to_torch(), pictures[:2], tmp_path / "low.onnx")
    weights = [one.name for one in onnx.load(tmp_path / "low.onnx").graph.initializer]
    assert any("low.weight" in name for name in weights)
    assert not any("high.weight" in name for name in weights)


@pytest.mark.pretrained
def test_digits_answer_alike_from_photos_and_from_an_onnx_file(tmp_path):
    paths = sorted(DIGITS.glob("*/*.png"))[::10]
    labels = [path.parent.name for path in paths]
    samples = SampleSet.from_list(paths, {"label": labels})
    store = embed(samples, "efficientnet_lite0", tmp_path / "cache.h5", options=FLOAT32)
    model = train(store, TrainOptions(test_fraction=0))
    pictures = prepared(paths, model.specs["efficientnet_lite0"].preprocess)
    module = model.to_torch()
    expected = model.predict_proba(paths)
    np.testing.assert_allclose(module(pictures), expected, atol=1e-3)
    session = exported(module, pictures[:2], tmp_path / "model.onnx")
    (found,) = session.run(None, {"pictures": pictures.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (found.argmax(axis=1) == [int(label) for label in labels]).mean() > 0.95
    store.close()
