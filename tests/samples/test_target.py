"""A target's kind is decided once, and every value can be read back."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from pipeline.errors import InputError, UnknownNameError
from pipeline.samples import Target, choose_targets, clean_column, stored_column, stratifier


@pytest.mark.parametrize(
    ("cells", "kind", "classes"),
    [
        (["owl", "elk", "owl"], "class", ("elk", "owl")),
        (["owl, barn", "a\nb", "ünï", "🦉"], "class", ("a\nb", "owl, barn", "ünï", "🦉")),
        (["007", "012"], "class", ("007", "012")),
        (["1", "2", "10", ""], "class", ("1", "10", "2")),
        (["1.0", "2.0"], "class", ("1.0", "2.0")),
        (["1.5", "2", ".5", "-1e3"], "number", ()),
        (["1.5", "NaN", "2.5"], "number", ()),
        (["nan", "inf"], "class", ("inf", "nan")),
        (["1_0", "2_0"], "class", ("1_0", "2_0")),
        ([str(i) for i in range(21)], "number", ()),
        ([str(i) for i in range(20)], "class", tuple(sorted(str(i) for i in range(20)))),
        ([3, 1, 3], "class", (1, 3)),
        (list(range(21)), "number", ()),
        ([0.0, 1.0, math.nan], "class", (0, 1)),
        ([0.5, 1.0], "number", ()),
        ([True, False, None], "class", (False, True)),
        (["owl", 3, 2.5, None], "class", ("2.5", "3", "owl")),
        ([True, 2], "class", ("2", "True")),
        ([None, "", math.nan], "class", ()),
        ([], "class", ()),
        ([b"owl", b"elk"], "class", ("elk", "owl")),
        (np.array([1, 2, 1], dtype=np.uint8), "class", (1, 2)),
        (np.array(["a", "b"]), "class", ("a", "b")),
        (pd.Series([1, None, 2], dtype="Int64"), "class", (1, 2)),
        (pd.Series(["a", None, "b"], dtype="category"), "class", ("a", "b")),
        (pd.Series([1.5, pd.NA, 2.5], dtype="Float64"), "number", ()),
        (pl.Series([1, None, 2]), "class", (1, 2)),
        (pd.to_datetime(pd.Series(["2024-05-01", None])), "class", ("2024-05-01 00:00:00",)),
    ],
)
def test_the_kind_follows_from_the_cells(cells, kind, classes):
    target = Target.decide("t", cells)
    assert (target.kind, target.classes) == (kind, classes)
    assert [type(c) for c in target.classes] == [type(c) for c in classes]


def test_labels_come_back_in_their_own_dtype():
    for cells, dtype in [(["a", "bcd"], "<U3"), ([1, 2], np.int64), ([True, False], bool)]:
        target = Target.decide("t", cells)
        assert target.labels.dtype == dtype
        assert target.labels[target.encode()].tolist() == cells


def test_classes_are_sorted_as_numpy_sorts_them():
    for cells in (["b", "a", "10", "9", "Z"], [3, 1, 2, -5], [2.0, 1.0]):
        assert list(Target.decide("t", cells).classes) == np.unique(np.array(cells)).tolist()


def test_missing_cells_are_none_nan_and_the_empty_text():
    target = Target.decide("t", ["a", "", None, float("nan"), np.nan, pd.NA, pd.NaT, "b"])
    assert target.present.tolist() == [True, *[False] * 6, True]
    assert target.encode().tolist() == [0, -1, -1, -1, -1, -1, -1, 1]
    assert target.counts == {"a": 1, "b": 1}


def test_numbers_are_float64_with_nan_for_missing():
    target = Target.decide("age", [" 1.5", "", "2e1", None], "number")
    np.testing.assert_array_equal(target.values, [1.5, np.nan, 20, np.nan])
    assert target.values.dtype == np.float64
    assert target.counts == {}
    assert Target.decide("age", ["007"], "number").values.tolist() == [7.0]
    assert Target.decide("age", [True, False], "number").values.tolist() == [1.0, 0.0]


def test_label_sets_agree_with_scikit_learn():
    cells = ["red|big", "big", "", "red | small", "|"]
    target = Target.decide("tags", cells, "multilabel")
    sets = [{"red", "big"}, {"big"}, set(), {"red", "small"}, set()]
    oracle = MultiLabelBinarizer().fit(sets)
    assert target.classes == tuple(oracle.classes_)
    np.testing.assert_array_equal(target.indicator(), oracle.transform(sets).astype(bool))
    assert target.present.tolist() == [True, True, False, True, True]
    assert target.counts == {"big": 2, "red": 2, "small": 1}
    lists = Target.decide(
        "tags", [["red", "big"], ("big",), None, {"small", "red"}, []], target.kind
    )
    assert lists.values.tolist() == target.values.tolist()


CELLS = {
    "text": st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5),
    "int": st.integers(-(2**60), 2**60),
    "float": st.floats(allow_infinity=False),
}


@pytest.mark.parametrize("cells", CELLS)
@given(data=st.data())
def test_a_cache_keeps_every_target(cells, data):
    column = data.draw(st.lists(st.none() | CELLS[cells], min_size=1, max_size=30))
    target = Target.decide("t", column)
    stored = target.column()
    assert stored.dtype == np.float64 or all(type(cell) is str for cell in stored)
    again = Target.decide("t", stored, target.kind)
    if cells != "text" and stored.dtype == object:  # too large for float64: kept as text
        assert again.classes == tuple(sorted(str(label) for label in target.classes))
    else:
        assert again.classes == target.classes
        np.testing.assert_array_equal(again.values, target.values)
    assert again.present.tolist() == target.present.tolist()


def test_a_cache_keeps_label_sets_apart_from_missing_ones():
    target = Target.decide("tags", [["b", "a"], [], None], "multilabel")
    again = Target.decide("tags", target.column(), "multilabel")
    assert again.values.tolist() == [("a", "b"), (), None]


def test_integers_that_float64_would_change_are_stored_as_text():
    assert stored_column(clean_column([2**53 + 1, 7])).tolist() == [str(2**53 + 1), "7"]
    assert stored_column(clean_column([2**53, 7])).dtype == np.float64


def test_fractions_are_no_classes_unless_they_are_text():
    with pytest.raises(InputError) as error:
        Target.decide("t", [0.5, 2, None, 2.0], "class", ["a", "b", "c", "d"])
    assert str(error.value) == (
        "target 't' should be a class, but has fractions: 0.5 (a). Classes are text or whole "
        "numbers: ask for the kind number, or give these values as text."
    )
    assert Target.decide("t", ["0.5", "2"], "class").classes == ("0.5", "2")


def test_a_subset_keeps_the_classes():
    target = Target.decide("t", ["a", "b", "c"])
    assert target.subset(np.array([2, 0])).encode().tolist() == [2, 0]
    assert target.subset(np.array([True, False, True])).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("cells", "kind", "sentence"),
    [
        (
            ["owl"] * 9 + ["elk"] * 3 + [""],
            None,
            "t: class, 2 classes (smallest: elk, 3), 1 missing",
        ),
        (["owl"], None, "t: class, 1 class (smallest: owl, 1)"),
        ([0.5, 80, None], None, "t: number, 0.5 to 80, 1 missing"),
        (["a|b", "a"], "multilabel", "t: multilabel, 2 labels (smallest: b, 1)"),
        (["", ""], None, "t: class, no values, 2 missing"),
        (["|"], "multilabel", "t: multilabel, 0 labels"),
    ],
)
def test_one_line_says_it(cells, kind, sentence):
    assert Target.decide("t", cells, kind).describe() == sentence


def error(call, *args, **kwargs):
    with pytest.raises((InputError, UnknownNameError)) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_cells_that_are_no_numbers_are_named():
    assert error(Target.decide, "age", ["1", "old", "2,5"], "number") == (
        "target 'age' should be a number, but 2 cells are no numbers: 'old' (row 2), '2,5' (row 3)."
        " Accepted: decimal numbers with a point, empty for missing. Mend these cells, or ask for "
        "the kind class."
    )
    assert "1 cell is no number: 'old' (a/2.jpg)." in error(
        Target.decide, "age", ["1", "old"], "number", ["a/1.jpg", "a/2.jpg"]
    )
    assert "'x' (row 5) and 3 more." in error(Target.decide, "age", ["x"] * 8, "number")


@pytest.mark.parametrize("cells", [[1.5, math.inf], ["1.5", "-inf"], ["1", "1e999"], [1, 10**400]])
def test_infinite_numbers_are_named(cells):
    assert error(Target.decide, "age", cells, "number" if 1 in cells else None).startswith(
        f"target 'age' has infinite numbers: {cells[1]!r} (row 2). Only finite numbers can be"
    )


def test_an_infinite_label_is_refused_too():
    assert "infinite numbers: inf (row 1)" in error(Target.decide, "t", [math.inf, 1.0], "class")


def test_lists_ask_for_multilabel():
    assert error(Target.decide, "tags", [["a", "b"]]) == (
        "target 'tags' has several labels in a cell: ('a', 'b') (row 1). A class has one label a "
        "row: ask for the kind multilabel."
    )
    assert "no number: ('a',)" in error(Target.decide, "tags", [["a"]], "number")


def test_a_kind_that_does_not_exist_is_named():
    assert error(Target.decide, "t", ["a"], "multi-label") == (
        "unknown target kind 'multi-label'. Did you mean 'multilabel'? Accepted: class, "
        "multilabel, number."
    )


def test_an_encoding_of_another_kind_is_refused():
    number = Target.decide("age", [1.5])
    assert error(number.encode) == (
        "target 'age' is of kind number, but class is needed here. Ask for it: "
        "Target.decide(..., kind='class')."
    )
    assert "multilabel is needed" in error(number.indicator)


def test_a_column_has_one_dimension():
    assert error(clean_column, np.zeros((3, 1))).startswith(
        "a column of labels has the shape (3, 1), but must have one dimension."
    )


def test_the_target_called_label_needs_no_naming():
    columns = {"age": ["1.5", "2.5"], "label": ["a", "b"]}
    assert list(choose_targets(columns)) == ["label"]
    assert list(choose_targets({"age": ["1.5", "2.5"]})) == ["age"]
    assert list(choose_targets({"age": ["1.5"], "who": ["x"]}, besides=["who"])) == ["age"]
    chosen = choose_targets(columns, ["age", "label", "age"], {"age": "class", "label": ""})
    assert [(name, target.kind) for name, target in chosen.items()] == [
        ("age", "class"),
        ("label", "class"),
    ]


def test_a_choice_that_cannot_be_made_lists_the_columns():
    columns = {"species": ["a"], "age": ["1"], "empty": [""]}
    assert error(choose_targets, columns) == (
        "there are 3 columns that could be the target: species, age, empty. One called 'label' "
        "needs no naming: name the target, or rename its column."
    )
    assert error(choose_targets, columns, ["specis"]) == (
        "unknown target 'specis'. Did you mean 'species'? Accepted: species, age, empty."
    )
    assert "unknown target 'agee'" in error(choose_targets, columns, ["age"], {"agee": "number"})
    assert error(choose_targets, {}).startswith("there are no labels. Accepted: a folder with one")
    assert error(choose_targets, columns, ["empty"]).startswith(
        "target 'empty' has no value in any of its 1 rows."
    )


def test_a_split_is_stratified_by_the_first_column_of_classes():
    columns = {
        "age": [1.5, 2.5, 3.5, 4.5],
        "remark": ["w", "x", "y", ""],
        "species": ["a", "a", "b", "b"],
        "sex": ["m", "f", "m", "f"],
    }
    assert stratifier(columns).name == "species"
    assert stratifier(columns, besides=["species"]).name == "sex"
    assert stratifier({"remark": columns["remark"]}).name == "remark"
    assert stratifier({"age": columns["age"], "empty": [None] * 4}) is None
    assert stratifier(columns, {"species": "multilabel"}).name == "sex"
    assert stratifier({"level": [1.5, math.inf], "sex": ["m", "m"]}).name == "sex"
