"""run(): the order of the stages, from Python."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from photo_album import KINDS, skies, write_tiny_weights

from pipeline import EmbeddingStore, SampleSet, TransferModel, run
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.errors import CacheMismatchError, InputError, OptionError, UnknownNameError
from pipeline.run_folder import RunFolder

PHOTOS, LABELS = skies(6)
IDS = [f"{row:02}" for row in range(18)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    weights = write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    return EmbedOptions(backbone="timm/test_resnet", weights=weights, image_size=32)


def samples(**columns) -> SampleSet:
    return SampleSet.from_list(PHOTOS, columns or {"label": LABELS}, ids=IDS)


def test_everything_is_in_the_folder_and_in_the_answer(tiny, tmp_path):
    finished = run(samples(), tmp_path / "out", tiny, TrainOptions(head="ridge"))
    assert finished.path == tmp_path / "out" / "model.safetensors"
    assert finished.embedding.rows == 18
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == finished.to_json()
    loaded = TransferModel.load(finished.path)
    np.testing.assert_array_equal(
        loaded.predict_proba(list(PHOTOS)), finished.model.predict_proba(list(PHOTOS))
    )
    with EmbeddingStore.open(tmp_path / "out" / "cache.h5") as store:
        assert store.ids == tuple(IDS)
        assert list(store.targets["label"].values) == LABELS


def test_options_may_be_left_out_and_the_folder_may_be_text(tiny, tmp_path):
    run(samples(), str(tmp_path / "deep" / "er"), tiny)
    again = run(samples(), str(tmp_path / "deep" / "er"))
    assert again.embedding.images_per_second is None


def test_groups_and_splits_are_no_targets(tiny, tmp_path):
    part = ["train", "train", "train", "train", "test", "val"] * 3
    visit = [str(row // 2) for row in range(18)]
    given = samples(species=LABELS, visit=visit, part=part)
    options = TrainOptions(group="visit", split_column="part", head="ridge")
    finished = run(given, tmp_path / "out", tiny, options)
    assert list(finished.model.heads) == ["species"]
    assert finished.model.results["species"].n_test == 3
    with pytest.raises(InputError, match="there are 3 columns that could be the target"):
        run(given, tmp_path / "other", tiny)


def test_nothing_is_embedded_before_the_labels_are_looked_at(tmp_path):
    unlabelled = SampleSet.from_list(PHOTOS, ids=IDS)
    for given, options, error, sentence in (
        (unlabelled, TrainOptions(), InputError, "the images have no labels"),
        (samples(label=["owl"] * 18), TrainOptions(), InputError, "only one class, 'owl'"),
        (samples(age=[1.5] * 18), TrainOptions(), InputError, "is 1.5 in every row"),
        (samples(), TrainOptions(target="lable"), UnknownNameError, "Did you mean 'label'"),
    ):
        with pytest.raises(error, match=sentence):
            run(given, tmp_path / "out", EmbedOptions(), options)
    assert not (tmp_path / "out").exists()


def test_another_spec_in_the_same_folder_is_no_run_of_it(tiny, tmp_path):
    """The configuration was removed by hand: the cache still knows what it is."""
    run(samples(), tmp_path / "out", tiny, TrainOptions(head="ridge"))
    (tmp_path / "out" / "config.toml").unlink()
    other = EmbedOptions(backbone=tiny.backbone, weights=tiny.weights, image_size=40)
    with pytest.raises(CacheMismatchError, match="image_size is 32 x 32 here and 40 x 40 there"):
        run(samples(), tmp_path / "out", other)


def test_overwriting_with_another_network_leaves_none_of_the_old(tiny, tmp_path):
    run(samples(), tmp_path / "out", tiny, TrainOptions(head="ridge"))
    weights = tmp_path / "vit.safetensors"
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet", pretrained=False).state_dict(), weights)
    other = EmbedOptions(backbone="timm/test_efficientnet", weights=weights, image_size=32)
    with pytest.raises(
        OptionError, match="backbone is timm/test_efficientnet here and timm/test_r"
    ):
        run(samples(), tmp_path / "out", other)
    finished = run(samples(), tmp_path / "out", other, overwrite=True)
    assert list(finished.model.specs) == ["timm/test_efficientnet"]
    with h5py.File(tmp_path / "out" / "cache.h5") as file:
        assert list(file["layers/timm"]) == ["test_efficientnet"]


def test_a_given_weights_file_is_found_from_any_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(tiny.weights).parent)
    relative = EmbedOptions("timm/test_resnet", weights=Path("tiny.safetensors"), image_size=32)
    run(samples(), tmp_path / "out", relative)
    monkeypatch.chdir(tmp_path)
    assert run(samples(), "out", tiny).embedding.reused == 18
    assert str(tiny.weights) in (tmp_path / "out" / "config.toml").read_text()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    folder = RunFolder(tmp_path / "file")
    with pytest.raises(InputError, match=r"is a file\. Give a folder to write into"):
        folder.claim(EmbedOptions(), TrainOptions(), overwrite=True)


def test_a_configuration_survives_the_way_through_the_file(tmp_path):
    folder = RunFolder(tmp_path / "out")
    options = (
        EmbedOptions(layers="a,b", resize="pad"),
        TrainOptions(target='quote " \\ é', target_kind=("a=class", "b=number"), refit=True),
    )
    folder.claim(*options, overwrite=False)
    folder.begin(*options)
    folder.claim(*options, overwrite=False)
    with pytest.raises(OptionError) as refused:
        folder.claim(EmbedOptions(layers="a"), TrainOptions(seed=7), overwrite=False)
    for difference in ("layers is a here and a,b there", "seed is 7 here and 0 there",
                       "refit is False here and True there",
                       'target is not given here and quote " \\ é there'):  # fmt: skip
        assert difference in str(refused.value)
    assert set(KINDS) == {"dawn", "noon", "night"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (TrainOptions(head="rigde"), "unknown head 'rigde'. Did you mean 'ridge'?"),
        (TrainOptions(fusion="conact"), "unknown fusion 'conact'. Did you mean 'concat'?"),
        (TrainOptions(fusion="single:nowhere"), "unknown layer 'nowhere'"),
        (TrainOptions(group="patiant"), "unknown group 'patiant'"),
        (TrainOptions(split_column="nosuch"), "unknown split column 'nosuch'"),
    ],
)
def test_a_wrong_name_is_said_before_anything_is_embedded(tmp_path, options, sentence):
    with pytest.raises(UnknownNameError, match=re.escape(sentence)):
        run(samples(), tmp_path / "out", EmbedOptions(), options)
    assert not (tmp_path / "out" / "cache.h5").exists()
    assert not (tmp_path / "out" / "config.toml").exists()
