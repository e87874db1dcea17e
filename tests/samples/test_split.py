"""A split keeps what belongs together on one side, and every class in proportion."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError, OptionError
from pipeline.samples import Split, Target, folds, read_parts


def distinct(count: int) -> list[bytes]:
    return [row.to_bytes(16, "little") for row in range(1, count + 1)]


def names(count: int) -> list[str]:
    return [f"{row:04}.jpg" for row in range(count)]


def made(labels, fraction=0.2, seed=0, digests=None, **options) -> Split:
    target = None if labels is None else Target.decide("label", labels)
    count = len(options.pop("ids", labels or ()))
    contents = distinct(count) if digests is None else digests
    return Split.make(names(count), contents, target, test_fraction=fraction, seed=seed, **options)


def error(call, *args, **kwargs) -> str:
    with pytest.raises((InputError, OptionError)) as caught:
        call(*args, **kwargs)
    return str(caught.value)


@st.composite
def tables(draw):
    """Labels (some missing), groups (some missing) and contents that repeat."""
    count = draw(st.integers(1, 60))

    def column(values):
        return draw(st.lists(values, min_size=count, max_size=count))

    labels = column(st.sampled_from(["owl", "elk", "cod", "bee", ""]))
    groups = column(st.integers(0, draw(st.integers(1, 40))) | st.none())
    digests = [bytes([n]) * 16 for n in column(st.integers(0, 200))]
    return labels, draw(st.none() | st.just(groups)), digests


FRACTIONS = st.floats(0, 0.9)


@given(tables(), FRACTIONS, st.integers(0, 5), st.randoms())
def test_what_belongs_together_stays_together(table, fraction, seed, random):
    labels, groups, digests = table
    target = Target.decide("label", labels)
    ids = names(len(labels))
    split = Split.make(ids, digests, target, test_fraction=fraction, seed=seed, groups=groups)
    test = set(split.test_ids)

    assert sorted(split.train_ids + split.test_ids) == ids
    assert not set(split.train_digests) & set(split.test_digests)
    assert split.crossing == 0
    sides = defaultdict(set)
    for name, group in zip(ids, groups or (), strict=False):
        sides[group].add(name in test)
    assert all(len(side) == 1 for group, side in sides.items() if group is not None)

    label_of = dict(zip(ids, labels, strict=True))
    assert {label_of[name] for name in split.train_ids} >= set(target.classes)
    assert set(split.untested) == set(target.classes) - {label_of[name] for name in test}
    assert test or fraction == 0 or not can_be_tested(labels, groups, digests)

    order = random.sample(range(len(ids)), len(ids))
    again = Split.make(
        [ids[row] for row in order],
        [digests[row] for row in order],
        target.subset(np.array(order)),
        test_fraction=fraction,
        seed=seed,
        groups=None if groups is None else [groups[row] for row in order],
    )
    assert again == split


def can_be_tested(labels, groups, digests) -> bool:
    """Whether some component could be held out: a graph search, as plain as can be."""
    rows = range(len(labels))

    def kin(a, b):
        same = groups is not None and groups[a] is not None and groups[a] == groups[b]
        return same or digests[a] == digests[b]

    left, parts = set(rows), []
    while left:
        part, edge = set(), {left.pop()}
        while edge:
            row = edge.pop()
            part.add(row)
            edge |= {other for other in left if kin(row, other)}
            left -= edge
        parts.append({labels[row] for row in part} - {""})
    pieces = Counter(label for part in parts for label in part)
    return any(part and all(pieces[label] > 1 for label in part) for part in parts)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8), st.floats(0.05, 0.6), st.integers(0, 3)
)
def test_every_class_gives_its_share(sizes, fraction, seed):
    labels = [f"class {place}" for place, size in enumerate(sizes) for _ in range(size)]
    split = made(labels, fraction, seed)
    held = Counter(labels[names(len(labels)).index(name)] for name in split.test_ids)
    large = [size for size in sizes if size > 1]
    total = max(1, round(fraction * sum(large))) if large else 0
    # A class of two keeps one row, whatever the fraction.
    assert abs(len(split.test_ids) - total) <= sum(size <= 3 for size in large)
    for place, size in enumerate(sizes):
        own = held[f"class {place}"]
        assert own < size
        assert abs(own - fraction * size) < 2
        if size > 1 and total >= len(large):
            assert own >= 1


def test_a_class_of_one_row_is_trained_on_and_said():
    split = made(["owl"] * 10 + ["elk"])
    assert split.untested == ("elk",)
    assert "0010.jpg" in split.train_ids
    assert len(split.test_ids) == 2


def test_a_fraction_of_zero_holds_out_nothing():
    assert made(["owl", "elk"] * 5, fraction=0).test_ids == ()
    assert made(["owl", "elk"], fraction=0, given=["train", "test"]).test_ids == ()
    assert made(["owl", "elk"], fraction=0).untested == ("elk", "owl")


def test_seeds_give_other_splits_of_the_same_sizes():
    splits = [made(["owl", "elk"] * 50, seed=seed) for seed in range(5)]
    assert len({split.test_ids for split in splits}) == 5
    assert {len(split.test_ids) for split in splits} == {20}


def test_new_rows_move_few_others():
    labels = ["owl", "elk"] * 100
    before = set(made(labels).test_ids)
    after = set(made([*labels, *["owl", "elk"] * 5]).test_ids)
    assert len(before - after) <= 3


def test_large_groups_come_as_near_as_they_can():
    labels = ["owl"] * 100 + ["elk"] * 100
    groups = [f"burst {row // 10}" for row in range(200)]
    split = made(labels, groups=groups)
    assert len(split.test_ids) == 40
    assert Counter(name < "0100.jpg" for name in split.test_ids) == {True: 20, False: 20}


def test_a_class_of_two_large_groups_gives_one():
    split = made(["owl"] * 20 + ["elk"] * 20, groups=[row // 10 for row in range(40)])
    assert split.untested == ()
    assert len(split.test_ids) == 20


def test_one_group_of_everything_is_all_trained_on():
    split = made(["owl", "elk"] * 5, groups=["same"] * 10)
    assert (split.test_ids, split.untested) == ((), ("elk", "owl"))


def test_groups_mean_the_same_from_a_table_and_from_a_cache():
    labels, groups = ["owl", "elk"] * 20, [row % 7 for row in range(40)]
    as_floats = np.array(groups, dtype=float)
    assert made(labels, groups=groups) == made(labels, groups=as_floats)
    assert made(labels, groups=groups) == made(labels, groups=[str(group) for group in groups])
    with_gaps = made(labels, groups=["", None, np.nan, *groups[3:]])
    assert with_gaps.groups[:4] == ("", "", "", "3")


def test_rows_without_any_label_are_never_held_out():
    labels = ["owl", "elk", ""] * 20
    split = made(labels)
    unlabelled = {name for name, label in zip(names(60), labels, strict=True) if not label}
    assert unlabelled <= set(split.train_ids)
    assert len(split.test_ids) == 8


def test_rows_labelled_in_another_target_are_divided_like_a_class():
    labels = ["owl", "elk", ""] * 20
    split = made(labels, labelled=np.ones(60, dtype=bool))
    held = Counter(labels[names(60).index(name)] for name in split.test_ids)
    assert held == {"owl": 4, "elk": 4, "": 4}


@pytest.mark.parametrize("target", [None, [float(n) + 0.5 for n in range(50)]])
def test_without_classes_the_rows_are_one_heap(target):
    split = made(target, ids=names(50)) if target is None else made(target)
    assert (len(split.test_ids), split.untested) == (10, ())


def test_a_given_test_part_is_held_out():
    given = ["train", "val", "test", "", "test"]
    split = made(["owl", "elk", "owl", "elk", "cod"], given=given)
    assert split.parts == ("train", "val", "test", "train", "test")
    assert split.untested == ("elk",)
    assert split.rows(names(5), "val").tolist() == [1]
    assert split.rows(["new.jpg", *names(5)[::-1]], "test").tolist() == [1, 3]


def test_without_a_test_part_val_is_held_out():
    split = made(["owl", "elk", "owl"], given=["train", "train", "val"])
    assert split.parts == ("train", "train", "test")


def test_an_unlabelled_test_part_tests_nothing_and_is_never_trained_on():
    labels = ["owl", "elk"] * 10 + [""] * 5
    split = made(labels, given=["train"] * 16 + ["val"] * 4 + ["test"] * 5)
    assert split.parts == ("train",) * 16 + ("test",) * 9
    split = made(labels, given=["train"] * 20 + ["test"] * 5)
    assert split.parts[20:] == ("test",) * 5
    assert len(split.test_ids) == 5 + 4


def test_a_split_of_train_alone_is_divided_by_the_seed():
    labels = ["owl", "elk"] * 10
    assert made(labels, given=["train"] * 20) == made(labels)


def test_duplicates_across_a_given_split_are_counted_and_not_moved():
    digests = [b"a" * 16, b"b" * 16, b"a" * 16, b"c" * 16]
    given = ["train", "train", "test", "test"]
    split = made(["owl", "elk"] * 2, digests=digests, given=given)
    assert (split.parts, split.crossing) == (tuple(given), 1)
    grouped = made(["owl", "elk"] * 2, digests=digests, given=given, groups=["x", "y", "", "y"])
    assert grouped.crossing == 2


def test_digests_come_in_every_form_that_a_cache_gives():
    digests = [b"\1" * 15 + b"\0", b"\2" * 16]
    wanted = made(["owl", "elk"], digests=digests).digests
    matrix = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(2, 16)
    for form in (matrix, matrix.view("V16").ravel(), np.array(digests, dtype="S16")):
        assert made(["owl", "elk"], digests=form).digests == wanted == tuple(digests)


def test_a_refit_trains_on_every_row():
    split = made(["owl", "elk"] * 5).trained_on_all()
    assert (len(split.train_ids), split.test_ids) == (10, ())


def test_a_split_survives_json():
    for options in ({}, {"groups": [None, *"aabbccdde"]}, {"given": ["train", "test"] * 5}):
        split = made(["owl", "elk"] * 5, seed=3, **options)
        assert Split.from_json(json.loads(json.dumps(split.to_json()))) == split


@pytest.mark.parametrize(
    "damage",
    [
        lambda json: json.pop("ids"),
        lambda json: json.update(more=1),
        lambda json: json.update(digests=["xx"] * 10),
        lambda json: json.update(digests=None),
        lambda json: json.update(parts=["train"] * 9),
        lambda json: json.update(parts=["trian"] * 10),
        lambda json: json.update(groups=["a"]),
    ],
)
def test_a_damaged_split_is_refused(damage):
    value = made(["owl", "elk"] * 5).to_json()
    damage(value)
    assert error(Split.from_json, value).startswith("this is not a split as the package writes it")


def test_what_cannot_be_split_is_refused():
    labels = ["owl", "elk"]
    for fraction in (-0.1, 1, float("nan")):
        assert error(made, labels, fraction) == (
            f"test_fraction is {fraction}, but must be at least 0 and below 1. "
            "0.2 holds out a fifth of the rows, 0 none."
        )
    assert error(made, labels, given=["test", "test"]) == (
        "the given split leaves no labelled row to train on: all of them are held out. Mark rows "
        "with train, val, valid, validation, test, or leave the split to the seed."
    )
    assert error(made, labels, groups=["a"]) == (
        "groups has 1 rows, but there are 2 ids. Give one value for each row."
    )
    repeated = error(Split.make, ["a", "a"], distinct(2), None, test_fraction=0.2, seed=0)
    assert repeated.startswith("1 ids stand more than once, the first is 'a'.")
    assert error(read_parts, ["train", "tset"]) == (
        "the split of row 2 is 'tset'. Accepted: train, val, valid, validation, test, or an empty "
        "cell. Mend the column, or leave the split to the seed."
    )
    assert "the split of b.jpg is 3" in error(read_parts, ["train", 3], ["a.jpg", "b.jpg"])


@given(tables(), st.integers(2, 6), st.integers(0, 3))
def test_folds_divide_the_labelled_rows(table, n_splits, seed):
    labels, groups, digests = table
    target = Target.decide("label", labels)
    pairs = folds(target, n_splits, seed=seed, groups=groups, digests=digests)
    present = set(np.flatnonzero(target.present).tolist())
    tested: set[int] = set()
    for train, test in pairs:
        assert set(train) | set(test) == present
        assert not set(train) & set(test)
        assert len(test)
        assert not tested & set(test)
        tested |= set(test)
        assert not {digests[row] for row in train} & {digests[row] for row in test}
        if groups is not None:
            own = [{groups[row] for row in side} - {None} for side in (train, test)]
            assert not own[0] & own[1]
        assert {labels[row] for row in train} == set(target.classes)
    assert len(pairs) <= n_splits


def test_folds_are_stratified():
    labels = ["owl"] * 50 + ["elk"] * 25 + ["cod"] * 3
    pairs = folds(Target.decide("label", labels), 5, seed=0)
    held = [Counter(labels[row] for row in test) for _, test in pairs]
    assert len(pairs) == 5
    assert {fold["owl"] for fold in held} == {10}
    assert {fold["elk"] for fold in held} == {5}
    assert sorted(fold["cod"] for fold in held) == [0, 0, 1, 1, 1]


def test_folds_of_numbers_and_of_label_sets():
    numbers = Target.decide("age", [float(n) + 0.5 for n in range(11)])
    assert sorted(len(test) for _, test in folds(numbers, 4, seed=1)) == [2, 3, 3, 3]
    tags = Target.decide("tags", ["a", "a|b", "", "b"], "multilabel")
    assert sorted(row for _, test in folds(tags, 9, seed=1) for row in test.tolist()) == [0, 1, 3]


def test_nothing_to_choose_by_is_no_fold():
    assert folds(Target.decide("label", ["owl", "elk"]), 5, seed=0) == []
    assert folds(Target.decide("label", ["owl"] * 4), 5, seed=0, groups=["a"] * 4) == []


def test_folds_do_not_depend_on_the_order_when_contents_are_known():
    labels, digests = ["owl", "elk"] * 10, distinct(20)
    order = np.random.default_rng(0).permutation(20)
    there = folds(Target.decide("label", labels), 4, seed=0, digests=digests)
    here = folds(
        Target.decide("label", labels).subset(order), 4, seed=0, digests=[digests[i] for i in order]
    )
    sides = [
        {frozenset(order[test].tolist()) for _, test in here},
        {frozenset(t.tolist()) for _, t in there},
    ]
    assert sides[0] == sides[1]
