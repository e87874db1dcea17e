"""An existing cache answers for what is not given, and contradicts what differs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from small_world import PREPROCESS, EagerBackbone, SmallNet, layer_in, pixels, small_backbone

from pipeline.backbones import load_backbone
from pipeline.cache import CacheLock, EmbeddingStore
from pipeline.config import EmbedOptions
from pipeline.embedding import EmbeddingJob, embed
from pipeline.errors import BackboneError, CacheMismatchError, OptionError, UnknownNameError
from pipeline.samples import SampleSet
from pipeline.spec import EmbeddingSpec

SAMPLES = SampleSet.from_arrays(np.stack([pixels(seed) for seed in range(3)]))
RESNET = "timm/test_resnet"


def made(cache, backbones=None, samples=SAMPLES, **options) -> EmbeddingJob:
    """Embed, and give the job."""
    job = EmbeddingJob(samples, cache, EmbedOptions(**options), backbones)
    with CacheLock(cache):
        job.prepare()
        job.execute()
    return job


def looked(cache, backbones=None, **options) -> EmbeddingJob:
    """Look at what there is to do, and do nothing."""
    job = EmbeddingJob(SAMPLES, cache, EmbedOptions(**options), backbones)
    job.prepare()
    return job


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache.h5"


@pytest.fixture(scope="module")
def resnet():
    network = load_backbone(RESNET, weights=None, image_size=32, resize="squash").network
    return EagerBackbone(RESNET, network, "max")


@pytest.fixture(scope="module")
def held(resnet, tmp_path_factory):
    """A cache made with nothing but unusual answers."""
    cache = tmp_path_factory.mktemp("held") / "cache.h5"
    made(cache, resnet, layers="layer2,features", store_dtype="float32", precision="float32")
    return cache


def test_the_cache_answers_for_all_that_is_not_given(held):
    job = looked(held)
    (spec,) = job.specs.values()
    assert spec.backbone == RESNET
    assert spec.preprocess.image_size == (32, 32)
    assert spec.preprocess.resize == "squash"
    assert (spec.pooling, spec.precision, spec.store_dtype) == ("max", "float32", "float32")
    assert list(job.layers) == [f"{RESNET}/layer2", f"{RESNET}/features"]
    assert job.plan.fresh == []
    assert job.new_layers == {}
    assert job.wanted[0].weights == "random"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 64}, "image_size is 32 x 32 here and 64 x 64 there"),
        ({"resize": "crop"}, "resize is squash here and crop there"),
        ({"pooling": "mean"}, "pooling is max here and mean there"),
        ({"precision": "bfloat16"}, "precision is float32 here and bfloat16 there"),
        ({"store_dtype": "float16"}, "store_dtype is float32 here and float16 there"),
    ],
)
def test_an_option_that_differs_is_a_mismatch_that_names_field_and_values(held, options, sentence):
    with pytest.raises(CacheMismatchError, match=sentence) as error:
        looked(held, RESNET, **options)
    assert str(held) in str(error.value)
    assert "Give the options it was made with, or another cache file" in str(error.value)
    assert len(error.value.differences) == 1


OTHERS = {
    "weights_digest": "ff" * 16,
    "pooling": "max",
    "precision": "bfloat16",
    "decoder": "pil",
    "store_dtype": "float32",
    "modality": "text",
    "preprocess_version": 0,
    "image_size": (8, 8),
    "resize": "pad",
    "crop_fraction": 0.5,
    "interpolation": "bilinear",
    "mean": (0.1, 0.2, 0.3),
    "std": (0.1, 0.2, 0.3),
}


def test_every_field_of_the_spec_is_tried():
    fields = {field.name for field in dataclasses.fields(EmbeddingSpec)}
    nested = {field.name for field in dataclasses.fields(type(PREPROCESS))}
    assert OTHERS.keys() == (fields | nested) - {"backbone", "preprocess"}


@pytest.mark.parametrize("field", OTHERS)
def test_rows_of_another_spec_are_never_reused_whichever_field_differs(cache, field):
    spec = small_backbone().spec(precision="float32")
    nested = field in {name.name for name in dataclasses.fields(PREPROCESS)}
    change = {field: OTHERS[field]}
    if nested:
        change = {"preprocess": dataclasses.replace(spec.preprocess, **change)}
    other = dataclasses.replace(spec, **change)
    vectors = np.zeros((3, 4), np.dtype(other.store_dtype))
    EmbeddingStore.from_arrays(
        {"small/low": vectors}, SAMPLES.ids, path=cache, specs={"small": other}
    ).close()
    given = EmbedOptions(
        precision="float32", store_dtype="float16", image_size=32, resize="crop", pooling="mean"
    )
    if field == "decoder":  # nobody can ask for one: the cache's is taken
        assert looked(cache, small_backbone()).specs["small"].decoder == "pil"
        return
    job = EmbeddingJob(SAMPLES, cache, given, small_backbone())
    with pytest.raises(CacheMismatchError, match=f"{field} is .* here and .* there"):
        job.prepare()


def test_a_new_backbone_takes_type_precision_and_decoder_of_the_cache(held, resnet):
    job = looked(held, [resnet, small_backbone()])
    assert [*job.specs] == [RESNET, "small"]
    spec = job.specs["small"]
    assert (spec.store_dtype, spec.precision) == ("float32", "float32")
    assert spec.preprocess == PREPROCESS


def test_backbones_stand_in_the_order_of_the_cache(cache):
    other = small_backbone(7, "other")
    made(cache, [other, small_backbone()])
    assert [*looked(cache, [small_backbone(), other]).specs] == ["other", "small"]


def test_a_module_of_ones_own_must_come_along(cache):
    made(cache, small_backbone())
    for asked in (None, RESNET):
        with pytest.raises(
            OptionError,
            match=r"cache\.h5 holds layers of small, a module of your own, which its name does "
            r"not bring\. Give the backbone itself",
        ):
            looked(cache, asked)


# ------------------------------------------------------------------------------------- layers


def layers_of(cache, backbones, layers):
    return list(looked(cache, backbones, layers=layers).layers)


def test_each_backbone_gets_its_own_of_the_layers_named(cache):
    both = [small_backbone(), small_backbone(7, "other")]
    assert layers_of(cache, both, "other/top,small/low") == ["small/low", "other/top"]
    assert layers_of(cache, both, "small/high, small/low,other/low") == [
        "small/low",
        "small/high",
        "other/low",
    ]
    assert layers_of(cache, both, "low") == ["small/low", "other/low"]
    assert layers_of(cache, both, "all") == [
        f"{name}/{tap}" for name in ("small", "other") for tap in ("low", "high", "top")
    ]
    third = load_backbone(SmallNet(), name="third", layers=["high"], preprocess=PREPROCESS)
    assert layers_of(cache, [both[0], third], "low,high") == [
        "small/low",
        "small/high",
        "third/high",
    ]


def test_a_layer_that_fits_no_backbone_is_unknown(cache):
    both = [small_backbone(), small_backbone(7, "other")]
    with pytest.raises(UnknownNameError, match=r"unknown layer 'hihg'\. Did you mean 'high'\?"):
        looked(cache, both, layers="small/low,hihg")
    with pytest.raises(
        UnknownNameError, match=r"unknown layer 'other/hi'\. .*Accepted: small/low, .*other/top"
    ):
        looked(cache, both, layers="small/low,other/hi")
    with pytest.raises(UnknownNameError, match="unknown layer 'another/low'"):
        looked(cache, both, layers="small/low,another/low")


def test_a_backbone_without_a_layer_is_refused(cache):
    both = [small_backbone(), small_backbone(7, "other")]
    with pytest.raises(
        OptionError,
        match=r"no layer of other was named\. Name one, other/low for instance, or leave this",
    ):
        looked(cache, both, layers="small/low")
    with pytest.raises(OptionError, match="no layer of small was named"):
        looked(cache, small_backbone(), layers=" ,")


def test_a_backbone_that_the_cache_holds_need_not_be_named_again(cache):
    both = [small_backbone(), small_backbone(7, "other")]
    made(cache, both, layers="small/low,other/low")
    assert layers_of(cache, both, "other/top") == ["small/low", "other/low", "other/top"]


# ----------------------------------------------------------------------- what does not apply


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 64}, r"image size \(64, 64\) was asked for, but .* with \(32, 32\)"),
        ({"resize": "pad"}, "resize pad was asked for, but .* with crop"),
        ({"pooling": "max"}, "pooling max was asked for, but .* with mean"),
        ({"weights": Path("w.pt")}, r"weights w\.pt was asked for"),
    ],
)
def test_an_option_for_a_loaded_backbone_is_refused_never_ignored(cache, options, sentence):
    with pytest.raises(OptionError, match=sentence) as error:
        looked(cache, small_backbone(), **options)
    assert "Give it to load_backbone" in str(error.value)


def test_options_that_say_what_the_backbone_is_are_fine(cache):
    looked(cache, small_backbone(), image_size=32, resize="crop", pooling="auto")


def test_backbones_are_named_once_and_at_least_one(cache):
    with pytest.raises(OptionError, match="2 backbones with 1 names were asked for"):
        looked(cache, [small_backbone(), small_backbone(3)])
    with pytest.raises(OptionError, match="0 backbones with 0 names"):
        looked(cache, [])
    with pytest.raises(OptionError, match="weights were given for 2 backbones at once"):
        looked(cache, "efficientnet_lite0,timm/test_vit", weights=Path("w.pt"))


def test_an_unknown_backbone_is_named_with_its_neighbour(cache):
    with pytest.raises(UnknownNameError, match="Did you mean 'efficientnet_lite0'"):
        looked(cache, "eficientnet_lite0")


def test_a_bundled_backbone_is_the_default(cache):
    assert [*looked(cache).specs] == ["efficientnet_lite0"]


# -------------------------------------------------------------------------- numbers that fit


def test_an_overflow_stops_with_the_way_out_and_the_way_out_works(cache):
    from torch import nn

    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loud = nn.Identity()

        def forward(self, x):
            return self.loud(x.mean(dim=(2, 3)) * 1e6)

    loud = load_backbone(Loud(), name="loud", layers=["loud"], preprocess=PREPROCESS)
    with pytest.raises(BackboneError, match=r"layer loud/loud of '0' .*--store-dtype float32"):
        made(cache, loud)
    assert not cache.exists()
    made(cache, loud, store_dtype="float32")
    assert np.abs(layer_in(cache, "loud/loud")).max() > 65504


def test_embed_takes_a_path_as_text_and_gives_an_open_store(cache):
    with embed(SAMPLES, small_backbone(), str(cache)) as store:
        assert len(store) == 3
        assert store.path == cache
