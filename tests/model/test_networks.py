"""Networks of a model: built again by name, travelling in the file, or given by the user."""

import dataclasses
import shutil

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from safetensors import safe_open
from small_world import PREPROCESS, WIDTHS, SmallNet, small_backbone, write_pictures

from pipeline.backbones import load_backbone
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.embedding import embed
from pipeline.errors import BackboneError, OptionError, UnknownNameError
from pipeline.model import TransferModel
from pipeline.model.networks import rebuilt
from pipeline.samples import SampleSet
from pipeline.training import train

TIMM = "timm/test_resnet"
QUICK = TrainOptions(head="ridge", fusion="last", test_fraction=0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("photos"), range(8))


@pytest.fixture(scope="module")
def pictures(photos):
    return sorted(photos.rglob("*.png"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights that no name stands for."""
    state = load_backbone(TIMM, weights=None).network.module.state_dict()
    torch.manual_seed(1)
    state = {k: v + 0.1 * torch.randn(v.shape) if v.is_floating_point() and "var" not in k else v
             for k, v in state.items()}  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    safetensors.torch.save_file(state, path)
    return path


@pytest.fixture(scope="module")
def with_weights(photos, weights, tmp_path_factory):
    """A cache of a network whose weights came from a file."""
    path = tmp_path_factory.mktemp("cache") / "cache.h5"
    options = EmbedOptions(TIMM, image_size=64, weights=weights, precision="float32")
    return embed(SampleSet.from_folder(photos), None, path, options=options)


@pytest.fixture(scope="module")
def own_cache(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "cache.h5"
    return embed(SampleSet.from_folder(photos), small_backbone(), path,
                 options=EmbedOptions(precision="float32"))  # fmt: skip


def test_weights_from_a_file_travel_inside_the_model(with_weights, weights, pictures, tmp_path):
    model = train(with_weights, QUICK)
    assert model.weights == {}
    path = tmp_path / "model"
    model.save(path)
    state = safetensors.torch.load_file(weights)
    with safe_open(path, "numpy") as file:
        inside = [name for name in file.keys() if name.startswith("backbones/")]  # noqa: SIM118
        assert {name.removeprefix(f"backbones/{TIMM}/") for name in inside} == set(state)
        for name in inside:
            array = file.get_tensor(name)
            theirs = state[name.removeprefix(f"backbones/{TIMM}/")].numpy()
            np.testing.assert_array_equal(array, theirs, strict=True)
        assert str(weights) not in file.metadata()["pipeline"]
    loaded = TransferModel.load(path)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    moved = weights.with_name("elsewhere")
    weights.rename(moved)
    try:
        np.testing.assert_array_equal(
            loaded.predict_proba(pictures), model.predict_proba(with_weights)
        )
    finally:
        moved.rename(weights)


def test_weights_of_a_backbone_in_hand_travel_too(with_weights, weights, tmp_path):
    """A door gives the network itself, and says where its weights came from."""
    model = train(with_weights, QUICK)
    path, other = tmp_path / "model", tmp_path / "other"
    model.save(path)
    backbone = load_backbone(TIMM, weights=weights, image_size=64)
    in_hand = dataclasses.replace(model, states={}, weights={TIMM: "/gone/mine.safetensors"})
    in_hand.given = {TIMM: backbone}
    in_hand.save(other)
    assert other.read_bytes() == path.read_bytes()


def test_a_weights_file_that_is_gone_is_named_before_anything_is_trained(with_weights, weights):
    moved = weights.with_name("elsewhere")
    weights.rename(moved)
    try:
        with pytest.raises(BackboneError) as caught:
            train(with_weights, QUICK)
    finally:
        moved.rename(weights)
    assert str(caught.value) == (
        f"the weights of {TIMM} came from {weights}, which is gone. They travel inside the model: "
        "put the file back, or embed again with other --weights."
    )


def test_a_weights_file_that_has_changed_is_refused_with_both_digests(with_weights, weights):
    kept = weights.with_name("kept")
    shutil.copy(weights, kept)
    other = load_backbone(TIMM, weights=None, image_size=64)
    safetensors.torch.save_file(other.network.module.state_dict(), weights)
    try:
        with pytest.raises(BackboneError) as caught:
            train(with_weights, QUICK)
    finally:
        kept.rename(weights)
    assert str(caught.value) == (
        f"the backbone {TIMM!r} is not the one that the model was trained on: weights_digest is "
        f"{other.weights_digest} here and {with_weights.specs[TIMM].weights_digest} there. "
        "Give that one, or train the model again."
    )


def test_random_weights_are_known_by_their_name(photos, pictures, tmp_path):
    options = EmbedOptions(TIMM, image_size=64, precision="float32")
    store = embed(SampleSet.from_folder(photos), load_backbone(TIMM, weights=None, image_size=64),
                  tmp_path / "cache.h5", options=options)  # fmt: skip
    model = train(store, QUICK)
    assert (model.weights, model.states) == ({TIMM: "random"}, {})
    model.save(tmp_path / "model")
    assert (tmp_path / "model").stat().st_size < 20_000
    loaded = TransferModel.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(pictures), model.predict_proba(store))


def test_a_state_makes_the_same_backbone():
    backbone = load_backbone("timm/test_vit", weights=None, image_size=96)
    state = backbone.state()
    again = load_backbone("timm/test_vit", weights=state, image_size=96)
    assert again.weights_digest == backbone.weights_digest
    first = next(name for name, array in state.items() if array.ndim)
    rest = {name: array for name, array in state.items() if name != first}
    with pytest.raises(BackboneError, match="lacks 1 of the"):
        load_backbone("timm/test_vit", weights=rest, image_size=96)


@pytest.fixture
def own_model(own_cache, tmp_path):
    """A model of a user's own module, in its file."""
    path = tmp_path / "own"
    train(own_cache, TrainOptions(head="ridge", fusion="concat", test_fraction=0)).save(path)
    return path


def test_a_module_of_the_users_is_asked_for(own_model, own_cache, pictures):
    loaded = TransferModel.load(own_model)
    assert loaded.predict(own_cache).shape == (8,)  # a cache needs no network
    with pytest.raises(OptionError) as caught:
        loaded.predict(pictures)
    assert str(caught.value) == (
        "the model was trained on a module of your own, 'small', which is not in its file. "
        "Give it: TransferModel.load(path, backbone=load_backbone(module, name='small', "
        "layers=..., preprocess=...))."
    )


@pytest.mark.parametrize("form", ["backbone", "list", "module"])
def test_a_module_of_the_users_serves_when_it_is_given(own_model, own_cache, pictures, form):
    given = {"backbone": small_backbone(), "list": [small_backbone()], "module": SmallNet()}[form]
    loaded = TransferModel.load(own_model, backbone=given)
    np.testing.assert_array_equal(loaded.predict(pictures), loaded.predict(own_cache))
    np.testing.assert_allclose(
        loaded.predict_proba(pictures), loaded.predict_proba(own_cache), atol=1e-6
    )


def test_a_module_whose_taps_are_pooled_twice_serves_bare(photos, pictures, tmp_path):
    backbone = small_backbone(pooling="mean,max")
    store = embed(SampleSet.from_folder(photos), backbone, tmp_path / "cache.h5",
                  options=EmbedOptions(precision="float32"))  # fmt: skip
    assert "small/low.max" in store.layers
    model = train(store, TrainOptions(head="ridge", fusion="concat", test_fraction=0))
    model.save(tmp_path / "model")
    loaded = TransferModel.load(tmp_path / "model", backbone=SmallNet())
    np.testing.assert_array_equal(loaded.predict(pictures), model.predict(store))


def test_another_network_than_the_one_trained_on_is_refused(own_model):
    ours = TransferModel.load(own_model).specs["small"].weights_digest
    other = small_backbone(seed=1)
    for given in (other, SmallNet(1)):
        with pytest.raises(BackboneError) as caught:
            TransferModel.load(own_model, backbone=given)
        assert str(caught.value) == (
            "the backbone 'small' is not the one that the model was trained on: weights_digest "
            f"is {other.weights_digest} here and {ours} there. "
            "Give that one, or train the model again."
        )
    narrow = dataclasses.replace(PREPROCESS, image_size=(32, 48))
    turned = load_backbone(SmallNet(), name="small", layers=list(WIDTHS), preprocess=narrow)
    with pytest.raises(BackboneError, match="image_size is 32 x 48 here and 32 x 32 there"):
        TransferModel.load(own_model, backbone=turned)


def test_a_backbone_that_the_model_does_not_use_is_refused(own_model):
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'smal'\. Did you mean 'small'"):
        TransferModel.load(own_model, backbone=small_backbone(name="smal"))


def test_a_bare_module_does_not_say_which_of_two_backbones_it_is(own_model, tmp_path):
    model = TransferModel.load(own_model)
    model.specs["other"] = dataclasses.replace(model.specs["small"], backbone="other")
    model.save(tmp_path / "two")
    with pytest.raises(OptionError, match="2 backbones \\(other, small\\), and a bare module does"):
        TransferModel.load(tmp_path / "two", backbone=SmallNet())


def test_a_module_for_pictures_that_are_not_square_comes_back(photos, pictures, tmp_path):
    wide = dataclasses.replace(PREPROCESS, image_size=(32, 48))
    backbone = load_backbone(SmallNet(), name="small", layers=list(WIDTHS), preprocess=wide)
    store = embed(SampleSet.from_folder(photos), backbone, tmp_path / "cache.h5",
                  options=EmbedOptions(precision="float32"))  # fmt: skip
    model = train(store, QUICK)
    model.save(tmp_path / "model")
    for given in (backbone, SmallNet()):
        loaded = TransferModel.load(tmp_path / "model", backbone=given)
        assert loaded.specs["small"].preprocess.image_size == (32, 48)
        np.testing.assert_allclose(
            loaded.predict_proba(pictures), model.predict_proba(store), atol=1e-6
        )


def test_a_named_network_that_is_not_square_of_its_own_accord_is_built_again(monkeypatch):
    """As timm's Sapiens models are (1024 x 768), which are too large for a test."""
    said = timm.data.resolve_model_data_config

    def oblong(module):
        return said(module) | {"input_size": (3, 64, 96)}

    with monkeypatch.context() as patched:
        patched.setattr(timm.data, "resolve_model_data_config", oblong)
        spec = load_backbone(TIMM, weights=None).spec()
        assert spec.preprocess.image_size == (64, 96)
        assert rebuilt(spec, "random").preprocess == spec.preprocess
    with pytest.raises(BackboneError, match="image_size is 160 x 160 here and 64 x 96 there"):
        rebuilt(spec, "random")


def test_a_network_is_built_when_it_is_first_asked_for(with_weights, tmp_path):
    train(with_weights, QUICK).save(tmp_path / "model")
    loaded = TransferModel.load(tmp_path / "model")
    assert loaded.predict(with_weights).shape == (8,)
    assert "backbones" not in vars(loaded)
    assert loaded.backbones is loaded.backbones
    assert loaded.backbones[TIMM].weights_digest == with_weights.specs[TIMM].weights_digest
