"""Feeds: both give the same rows in the same order, looked at in the same way."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_networks import normalised, outputs_of
from tuning_world import TAPS, model_of, prepared, striped

from pipeline.backbones import Cut
from pipeline.digest import digest_array
from pipeline.errors import BadInputError
from pipeline.finetuning.feeds import BoundaryFeed, PictureFeed
from pipeline.finetuning.looking import Looking
from pipeline.finetuning.rows import find_rows
from pipeline.inputs import View

VIEWS = [View(number, seed=4, flip=True) for number in range(3)]
BATCHES = [torch.tensor(rows) for rows in ([5, 2, 9], [0], [7, 7, 1, 3])]


@pytest.fixture(scope="module")
def world():
    samples = striped(30)
    model = model_of(samples)
    return model, find_rows(model, samples)


@pytest.fixture(scope="module")
def cut(world):
    return Cut(world[0].backbones["own"], TAPS, 2)


def looking_of(model):
    return Looking(model.backbones["own"], model.specs["own"], model.layers, "cpu")


@pytest.fixture(scope="module")
def boundary(world, cut, tmp_path_factory):
    model, rows = world
    path = tmp_path_factory.mktemp("boundary") / "boundary.h5"
    cache, X = looking_of(model).boundary(rows, cut, path, "key", 3, lambda X: VIEWS)
    np.testing.assert_array_equal(X, looking_of(model).vectors(rows.samples))
    with cache:
        yield BoundaryFeed(cache, "cpu")


def pictures_of(world, **options):
    model, rows = world
    return PictureFeed(rows.samples, model.specs["own"], VIEWS, "cpu", **options)


def seen(world, rows, view):
    """Pictures as a network gets them, by hand."""
    model, tuning = world
    sources = [tuning.samples.sources[row] for row in rows]
    looked = [view.of(np.array(own), digest_array(own)) for own in sources]
    return prepared(looked, model.specs["own"].preprocess)


@pytest.mark.parametrize(("epoch", "view"), [(0, 0), (1, 1), (2, 2), (3, 1), (4, 2)])
def test_views_take_turns_and_the_clean_one_is_for_validation(world, boundary, epoch, view):
    module = world[0].backbones["own"].network.module
    preprocess = world[0].specs["own"].preprocess
    found = list(boundary.inputs(BATCHES, epoch))
    shown = list(pictures_of(world).inputs(BATCHES, epoch))
    assert len(found) == len(shown) == len(BATCHES)
    for rows, (entering, below), (pictures,) in zip(BATCHES, found, shown, strict=True):
        expected = seen(world, rows.tolist(), VIEWS[view])
        np.testing.assert_array_equal(pictures, expected)
        assert pictures.dtype == torch.uint8
        outputs = outputs_of(module, ["low", "middle"], normalised(expected, preprocess))
        assert entering.dtype == below.dtype == torch.float32
        np.testing.assert_allclose(entering, outputs["middle"], rtol=1e-3, atol=1e-3)
        pooled = np.hstack([outputs[tap].mean((2, 3)) for tap in ("low", "middle")])
        np.testing.assert_allclose(below, pooled, rtol=1e-3, atol=1e-3)


def test_both_lead_to_the_same_layers(world, cut, boundary):
    for epoch in (0, 2):
        for (pictures,), inputs in zip(
            pictures_of(world).inputs(BATCHES, epoch), boundary.inputs(BATCHES, epoch), strict=True
        ):
            with torch.no_grad():
                torch.testing.assert_close(cut(pictures), cut.resume(*inputs), rtol=2e-3, atol=2e-3)


def test_new_views_in_every_epoch_are_of_the_kind_of_the_last(world):
    feed = pictures_of(world, anew=True)
    for epoch in (1, 5):
        ((pictures,),) = feed.inputs([BATCHES[0]], epoch)
        expected = seen(world, BATCHES[0].tolist(), View(epoch, seed=4, flip=True))
        np.testing.assert_array_equal(pictures, expected)
    ((clean,),) = feed.inputs([BATCHES[0]], 0)
    np.testing.assert_array_equal(clean, seen(world, BATCHES[0].tolist(), View(0)))


def test_a_cache_of_the_same_key_is_taken_as_it_is_and_one_of_another_is_made_anew(
    world, cut, tmp_path
):
    model, rows = world
    path, asked = tmp_path / "boundary.h5", []

    def views(X):
        asked.append(X)
        return VIEWS

    looking = looking_of(model)
    first, X = looking.boundary(rows, cut, path, "key", 3, views)
    first.close()
    written = path.stat().st_ino
    again, Y = looking.boundary(rows, cut, path, "key", 3, views)
    again.close()
    assert (len(asked), path.stat().st_ino) == (1, written)
    np.testing.assert_array_equal(X, Y)
    other, _ = looking.boundary(rows, cut, path, "other", 3, views)
    other.close()
    assert (len(asked), other.contents.key) == (2, "other")


def test_its_size_is_said_before_it_is_written(world, cut, tmp_path, caplog):
    caplog.set_level("INFO", logger="pipeline.finetuning")
    model, rows = world
    path = tmp_path / "boundary.h5"
    looking_of(model).boundary(rows, cut, path, "key", 3, lambda X: VIEWS)[0].close()
    size = 3 * 24 * (12 * 8 * 8 + 8 + 12) * 2
    assert caplog.messages == [
        f"3 views of 24 pictures at the end of middle: {round(size / 1000)} kB in {path}, deleted "
        "at the end"
    ]


def test_a_picture_that_can_no_longer_be_read_is_named(world, tmp_path):
    model, rows = world
    path = tmp_path / "gone.png"
    Image.fromarray(rows.samples.sources[2]).save(path)
    sources = list(rows.samples.sources)
    sources[2] = path
    samples = dataclasses.replace(rows.samples, sources=tuple(sources))
    feed = PictureFeed(samples, model.specs["own"], VIEWS, "cpu")
    assert len(list(feed.inputs(BATCHES, 0))) == 3
    path.unlink()
    with pytest.raises(BadInputError) as caught:
        list(feed.inputs(BATCHES, 0))
    assert list(caught.value.failures) == [(samples.ids[2], "no such file")]
