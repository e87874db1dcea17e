"""The options: one schema for flags, TOML keys and Python, checked once."""

import dataclasses
import inspect
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import EmbedOptions, TrainOptions, parse_count, parse_target_kinds
from pipeline.errors import OptionError
from pipeline.fusion import FUSERS
from pipeline.heads import HEADS
from pipeline.pooling import POOLINGS

OPTIONS = [EmbedOptions, TrainOptions]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_values(options):
    assert options() == options()
    assert hash(options()) == hash(options())
    with pytest.raises(dataclasses.FrozenInstanceError):
        options().seed = 1


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_is_explained(options):
    explained = re.findall(r"^(\w+)$", inspect.getdoc(options), re.MULTILINE)
    assert [name for name in explained if name != "Parameters"] == [
        field.name for field in dataclasses.fields(options)
    ]


def test_no_name_means_two_things():
    names = [field.name for options in OPTIONS for field in dataclasses.fields(options)]
    assert len(names) == len(set(names))


def words_of(options, name):
    """The words of one option's description."""
    text = inspect.getdoc(options)
    found = re.search(rf"^{name}\n((?:    .*\n?)+)", text, re.MULTILINE)
    return set(re.findall(r"[\w+]+", found[1]))


def test_the_descriptions_name_all_there_is():
    """The registries grow: what they hold must stand in the help."""
    assert set(HEADS) <= words_of(TrainOptions, "head")
    assert set(FUSERS) - {"single"} <= words_of(TrainOptions, "fusion")
    assert set(POOLINGS) <= words_of(EmbedOptions, "pooling")


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_share_is_at_least_0_and_below_1(fraction):
    with pytest.raises(OptionError, match="must be at least 0 and below 1"):
        TrainOptions(test_fraction=fraction)


@pytest.mark.parametrize("size", [0, -3])
def test_a_picture_has_pixels(size):
    with pytest.raises(OptionError, match=f"image size is {size}, but must be at least 1 pixel"):
        EmbedOptions(image_size=size)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_of_pixels_lets_some_through(limit):
    with pytest.raises(OptionError, match=f"max pixels is {limit}, but must be at least 1"):
        EmbedOptions(max_pixels=limit)


@given(st.integers(min_value=1))
def test_batch_sizes_are_read(size):
    assert parse_count("batch size", size) == parse_count("batch size", str(size)) == size


@given(st.text().filter(lambda text: text != "auto" and not re.fullmatch(r"\d*[1-9]\d*", text)))
def test_what_is_no_batch_size_is_refused(text):
    with pytest.raises(OptionError, match="must be auto or a whole number above 0"):
        parse_count("batch size", text)


@given(st.dictionaries(st.text(min_size=1), st.sampled_from(["class", "multilabel", "number"])))
def test_target_kinds_are_read_whatever_the_columns_are_called(kinds):
    assert parse_target_kinds(tuple(f"{name}={kind}" for name, kind in kinds.items())) == kinds


@pytest.mark.parametrize("pair", ["age", "=class", ""])
def test_a_kind_without_a_name_is_refused(pair):
    with pytest.raises(OptionError, match="must be NAME=class, NAME=multilabel or NAME=number"):
        parse_target_kinds((pair,))


def test_choices_are_the_same_as_the_specs():
    from pipeline.config import OnBadInput

    assert get_args(OnBadInput) == ("skip", "fail")
