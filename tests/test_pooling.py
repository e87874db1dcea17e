"""Every pooling against plain numpy, for maps of either order, tokens and vectors."""

import numpy as np
import pytest
import torch

from pipeline.errors import OptionError, UnknownNameError
from pipeline.pooling import POOLINGS, pool, pooled_width, resolve_pooling

GENERATOR = np.random.default_rng(0)
MAPS = GENERATOR.normal(size=(3, 5, 7, 7)).astype(np.float32)


def grid(maps, side):
    """Mean of every cell of a grid whose cells overlap where the side does not divide."""
    height, width = maps.shape[2:]
    rows = [slice(i * height // side, -(-(i + 1) * height // side)) for i in range(side)]
    columns = [slice(i * width // side, -(-(i + 1) * width // side)) for i in range(side)]
    cells = [[maps[:, :, row, column].mean((2, 3)) for column in columns] for row in rows]
    return np.array(cells).transpose(2, 3, 0, 1).reshape(len(maps), -1)


EXPECTED = {
    "mean": lambda maps: maps.mean((2, 3)),
    "max": lambda maps: maps.max((2, 3)),
    "mean+max": lambda maps: np.hstack([maps.mean((2, 3)), maps.max((2, 3))]),
    "gem": lambda maps: np.cbrt((np.clip(maps, 1e-6, None).astype(np.float64) ** 3).mean((2, 3))),
    "grid2": lambda maps: grid(maps, 2),
    "grid4": lambda maps: grid(maps, 4),
}


def same(got, expected):
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", EXPECTED)
def test_a_map_is_pooled_as_numpy_does(pooling):
    same(pool(torch.from_numpy(MAPS), "BCHW", pooling), EXPECTED[pooling](MAPS))


@pytest.mark.parametrize("pooling", EXPECTED)
def test_a_map_with_channels_last_gives_the_same(pooling):
    last = torch.from_numpy(MAPS.transpose(0, 2, 3, 1).copy())
    same(pool(last, "BHWC", pooling), EXPECTED[pooling](MAPS))


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("pooling", EXPECTED)
def test_tokens_are_pooled_as_the_map_they_came_from_and_the_first_ones_left_out(pooling, prefix):
    patches = MAPS.reshape(3, 5, 49).transpose(0, 2, 1)
    first = GENERATOR.normal(10, size=(3, prefix, 5)).astype(np.float32)
    tokens = torch.from_numpy(np.concatenate([first, patches], axis=1))
    same(pool(tokens, "BTD", pooling, prefix_tokens=prefix), EXPECTED[pooling](MAPS))


def test_cls_is_the_first_token():
    tokens = GENERATOR.normal(size=(3, 50, 5)).astype(np.float32)
    same(pool(torch.from_numpy(tokens), "BTD", "cls", prefix_tokens=1), tokens[:, 0])


@pytest.mark.parametrize("pooling", ["mean", "max", "mean+max", "gem"])
def test_tokens_that_fill_no_square_are_pooled_all_the_same(pooling):
    tokens = torch.from_numpy(MAPS.reshape(3, 5, 49).transpose(0, 2, 1)[:, :48].copy())
    expected = EXPECTED[pooling](MAPS.reshape(3, 5, 49, 1)[:, :, :48])
    same(pool(tokens, "BTD", pooling), expected)


@pytest.mark.parametrize("pooling", ["grid2", "grid4"])
def test_a_grid_of_tokens_that_fill_no_square_is_refused(pooling):
    with pytest.raises(OptionError) as error:
        pool(torch.zeros(1, 48, 5), "BTD", pooling)
    assert str(error.value) == (
        f"pooling {pooling} needs a square map, but this network gives 48 patches. "
        "Use mean, max, mean+max or gem."
    )


@pytest.mark.parametrize("pooling", [*POOLINGS, ""])
def test_a_vector_stays_as_it_is(pooling):
    vector = torch.randn(3, 5)
    assert pool(vector, "BD", pooling) is vector


@pytest.mark.parametrize(
    ("axes", "shape"), [("BCHW", (3, 5, 7, 6)), ("BHWC", (3, 7, 6, 5)), ("BTD", (3, 50, 5))]
)
@pytest.mark.parametrize("prefix", [0, 1])
def test_without_pooling_every_value_stays_in_its_order(axes, shape, prefix):
    values = GENERATOR.normal(size=shape).astype(np.float32)
    got = pool(torch.from_numpy(values), axes, "", prefix_tokens=prefix)
    np.testing.assert_array_equal(got.numpy(), values.reshape(3, -1))


def test_without_pooling_the_order_is_that_of_the_axes_not_of_the_memory():
    values = torch.from_numpy(MAPS).to(memory_format=torch.channels_last)
    np.testing.assert_array_equal(pool(values, "BCHW", "").numpy(), MAPS.reshape(3, -1))


def test_without_pooling_half_precision_becomes_float32():
    half = torch.from_numpy(MAPS).half()
    same(pool(half, "BCHW", ""), MAPS.astype(np.float16).astype(np.float32).reshape(3, -1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pooling_is_in_float32_whatever_the_network_computes_in(dtype):
    half = torch.from_numpy(MAPS).to(dtype)
    same(pool(half, "BCHW", "mean"), half.float().numpy().mean((2, 3)))


@pytest.mark.parametrize("pooling", EXPECTED)
def test_the_width_is_known_before(pooling):
    assert pool(torch.from_numpy(MAPS), "BCHW", pooling).shape == (3, pooled_width(5, pooling))


@pytest.mark.parametrize(
    ("asked", "class_token", "became"),
    [
        ("auto", True, "cls,mean"),
        ("auto", False, "mean"),
        ("gem", True, "gem"),
        ("cls", True, "cls"),
        ("cls, max", True, "cls,max"),
    ],
)
def test_auto_is_resolved_and_any_other_pooling_is_kept(asked, class_token, became):
    assert resolve_pooling(asked, class_token=class_token) == became


def test_cls_without_a_class_token_is_refused():
    with pytest.raises(OptionError) as error:
        resolve_pooling("mean,cls", class_token=False)
    assert str(error.value) == (
        "pooling cls needs a class token, and this network has none. "
        "Use mean, max, mean+max, gem, grid2 or grid4."
    )


def test_no_pooling_cannot_be_asked_of_a_backbone():
    with pytest.raises(UnknownNameError, match=r"unknown pooling ''\. Accepted: auto, mean"):
        resolve_pooling("", class_token=False)


def test_an_unknown_pooling_is_refused_with_its_nearest():
    with pytest.raises(UnknownNameError) as error:
        resolve_pooling("grid3", class_token=False)
    assert str(error.value) == (
        "unknown pooling 'grid3'. Did you mean 'grid4'? "
        "Accepted: auto, mean, max, mean+max, cls, gem, grid2, grid4."
    )
