"""Rows of a tuning: those that the model was trained on, by content, and no others."""

import copy
import dataclasses
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from tuning_world import model_of, slants, stripe, striped

from pipeline.errors import InputError
from pipeline.finetuning.rows import find_rows
from pipeline.samples import SampleSet

N = 60


@pytest.fixture(scope="module")
def samples():
    return striped(N)


@pytest.fixture(scope="module")
def model(samples):
    return model_of(samples)


def named(rows, which):
    return {rows.samples.ids[row] for row in getattr(rows, which)}


def changed(samples, **changes):
    return dataclasses.replace(samples, **changes)


def relabelled(samples, new, column="label"):
    """Other labels for some ids."""
    old = zip(samples.ids, samples.columns[column], strict=True)
    values = np.array([new.get(name, label) for name, label in old], dtype=object)
    return changed(samples, columns={**samples.columns, column: values})


def test_a_part_of_the_training_rows_is_set_aside_by_class_and_no_test_row_is_touched(
    model, samples
):
    rows = find_rows(model, samples)
    assert len(model.split.test_ids) == 12
    assert set(rows.samples.ids) == set(model.split.train_ids)
    train, validation = named(rows, "train"), named(rows, "validation")
    assert train | validation == set(model.split.train_ids)
    assert not train & validation
    assert len(validation) == round(0.15 * 48)
    labels = dict(zip(samples.ids, samples.columns["label"], strict=True))
    assert sorted(Counter(labels[name] for name in validation).values()) == [2, 2, 3]
    assert rows.targets["label"].values.tolist() == [labels[name] for name in rows.samples.ids]
    parts = dict(zip(rows.split.ids, rows.split.parts, strict=True))
    assert {name for name, part in parts.items() if part == "val"} == validation
    assert {name for name, part in parts.items() if part == "test"} == set(model.split.test_ids)
    assert "val" not in model.split.parts  # the model's own is left as it was
    assert rows.groups() is None


def test_the_same_rows_are_set_aside_again(model, samples):
    backwards = samples.subset(np.arange(N)[::-1])
    assert named(find_rows(model, backwards), "validation") == named(
        find_rows(model, samples), "validation"
    )


def test_every_class_of_every_target_is_left_to_train_on(samples):
    """Of 15 pairs of rows in the second target, whatever the seed of the split."""
    pairs = [f"pair {row % 15}" if row < 30 else None for row in range(N)]
    both = changed(samples, columns={**samples.columns, "pair": np.array(pairs, object)})
    for seed in range(5):
        own = model_of(both, test_fraction=0, target=("label", "pair"), seed=seed)
        rows = find_rows(own, both)
        target = rows.targets["pair"]
        assert set(target.values[rows.train]) - {None} == {f"pair {k}" for k in range(15)}
        backwards = find_rows(own, both.subset(np.arange(N)[::-1]))
        assert named(backwards, "validation") == named(rows, "validation")
        assert 0.1 < len(rows.validation) / len(rows.samples) < 0.2


def test_rows_are_found_by_content_whatever_their_names_and_among_others(model, samples, tmp_path):
    known = named(find_rows(model, samples), "validation")
    pictures = {
        name: stripe(int(name), kind) for name, kind in zip(samples.ids, slants(N), strict=True)
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = {name: tmp_path / f"{name}.png" for name in reversed(samples.ids)}
    filed = SampleSet.from_list(files.values(), {"label": slants(N)[::-1]}, ids=files)
    own = model_of(filed)
    assert named(find_rows(own, filed), "validation") == known  # names and seed decide
    strange = [stripe(row, "flat") for row in range(500, 510)]
    moved = [path.rename(tmp_path / f"moved {name}.png") for name, path in files.items()]
    other = SampleSet.from_list([*strange, *moved], {"label": ["left"] * 10 + slants(N)[::-1]})
    rows = find_rows(own, other)
    assert {name[-7:-4] for name in rows.samples.ids} == set(model.split.train_ids)
    assert {name[-7:-4] for name in named(rows, "validation")} == known


def test_a_held_out_picture_is_left_alone_under_any_name_and_label(model, samples):
    held = samples.subset(np.isin(samples.ids, model.split.test_ids))
    again = SampleSet.from_list(
        [*samples.sources, *held.sources], {"label": [*slants(N), *["flat"] * len(held)]}
    )
    rows = find_rows(model, again)
    assert len(rows.samples) == 48
    assert max(int(name) for name in rows.samples.ids) < N


def test_a_copy_of_a_held_out_picture_is_not_trained_on_even_where_a_given_split_does(samples):
    parts = ["test" if row < 12 else "train" for row in range(N)] + ["train"]
    both = SampleSet.from_list(
        [*samples.sources, samples.sources[0]], {"label": [*slants(N), "flat"], "split": parts}
    )
    own = model_of(changed(both, columns={"label": both.columns["label"]}, split=tuple(parts)))
    assert own.split.crossing == 1
    rows = find_rows(own, both)
    assert sorted(map(int, rows.samples.ids)) == list(range(12, N))


def test_validation_rows_of_a_given_split_are_the_validation(samples):
    parts = ["test", "val", *["train"] * 3, "val"] * 10
    own = model_of(changed(samples, split=tuple(parts)))
    rows = find_rows(own, samples)
    assert named(rows, "validation") == {f"{row:03}" for row in range(N) if row % 6 in (1, 5)}
    assert named(rows, "train") == {f"{row:03}" for row in range(N) if row % 6 in (2, 3, 4)}
    assert rows.split == own.split


def test_copies_and_rows_of_a_group_are_set_aside_together(samples):
    groups = [f"g{row // 4}" if row < 40 else "" for row in range(N)]
    doubled = SampleSet.from_list(
        [*samples.sources, *samples.sources[40:50]],
        {"label": [*slants(N), *slants(N)[40:50]], "who": [*groups, *[""] * 10]},
        ids=[*samples.ids, *(f"{name} again" for name in samples.ids[40:50])],
    )
    own = model_of(doubled, group="who", target="label")
    rows = find_rows(own, doubled)
    aside = named(rows, "validation")
    assert 0.1 < len(aside) / len(rows.samples) < 0.25
    known = dict(zip(doubled.ids, doubled.columns["who"], strict=True))
    train = named(rows, "train")
    assert not {known[name] for name in aside} & {known[name] for name in train} - {None, ""}
    assert not {name[:3] for name in aside} & {name[:3] for name in train}
    told = dict(zip(rows.samples.ids, rows.groups(), strict=True))
    assert {name: group or "" for name, group in told.items()} == {
        name: known[name] or "" for name in told
    }


def test_labels_that_were_corrected_since_are_taken(model, samples):
    name = model.split.train_ids[0]
    rows = find_rows(model, relabelled(samples, {name: "right"}))
    assert rows.targets["label"].values[rows.samples.ids.index(name)] == "right"


def test_a_row_that_lost_its_label_is_left_out(model, samples):
    name = model.split.train_ids[0]
    rows = find_rows(model, relabelled(samples, {name: None}))
    assert len(rows.samples) == 47
    assert name not in rows.samples.ids


def test_what_cannot_be_read_and_is_not_needed_does_no_harm(model, samples, tmp_path):
    more = SampleSet.from_list(
        [*samples.sources, tmp_path / "gone.png"], {"label": [*slants(N), "flat"]}
    )
    assert len(find_rows(model, more).samples) == 48


# What is refused


def refusal(model, samples):
    with pytest.raises(InputError) as caught:
        find_rows(model, samples)
    return str(caught.value)


def test_a_model_that_does_not_say_what_it_was_trained_on(model, samples):
    unsaid = copy.copy(model)
    unsaid.split = None
    assert refusal(unsaid, samples) == (
        "the model does not say which rows it was trained on, so none can be trusted to be "
        "unseen. Train it again: pipeline train."
    )


def test_training_rows_that_are_missing_are_counted(model, samples):
    gone = sorted(model.split.train_ids)[3:6]
    rest = samples.subset(~np.isin(samples.ids, gone))
    assert refusal(model, rest) == (
        "the source lacks 3 of the 48 inputs that the model was trained on (compared by content; "
        f"the first is {gone[0]!r}). Give the source that it was trained on, or train a model on "
        "this one: pipeline train."
    )


def test_a_training_file_that_cannot_be_read_counts_as_missing(model, samples, tmp_path):
    place = samples.ids.index(model.split.train_ids[0])
    sources = list(samples.sources)
    sources[place] = tmp_path / "gone.png"
    found = refusal(model, changed(samples, sources=tuple(sources)))
    assert found.startswith("the source lacks 1 of the 48 inputs that the model was trained on")


def test_a_held_out_row_may_be_missing(model, samples):
    rest = samples.subset(~np.isin(samples.ids, model.split.test_ids))
    assert len(find_rows(model, rest).samples) == 48


def test_a_source_without_the_target(model, samples):
    rest = "Give what the model was trained on, with its labels."
    other = changed(samples, columns={"kind": samples.columns["label"]})
    assert refusal(model, other) == (
        f"the source has no labels for the target 'label': it has 'kind'. {rest}"
    )
    assert refusal(model, changed(samples, columns={})) == (
        f"the source has no labels for the target 'label': it has no column at all. {rest}"
    )


def test_a_task_without_labels_among_the_training_rows(model, samples):
    bare = relabelled(samples, dict.fromkeys(model.split.train_ids))
    assert refusal(model, bare) == (
        "target 'label' has no label in any of the rows that the model was trained on. Label "
        "some, or train a model without this target."
    )


def test_a_single_class_among_the_training_rows(model, samples):
    same = relabelled(samples, dict.fromkeys(model.split.train_ids, "flat"))
    assert refusal(model, same) == (
        "target 'label' has only one class, 'flat', in every row that the model was trained on: "
        "there is nothing to tell apart. Give at least two classes, each in a folder of its own."
    )


def test_a_class_that_the_model_does_not_know(model, samples):
    new = relabelled(samples, dict.fromkeys(model.split.train_ids[:2], "up"))
    assert refusal(model, new) == (
        "target 'label' has the class 'up' in 2 of these rows, which the model does not know: it "
        "knows flat, left, right. Mend the label, or train the model again first: pipeline train."
    )


def test_a_new_class_of_a_held_out_row_does_no_harm(model, samples):
    new = relabelled(samples, {model.split.test_ids[0]: "up"})
    assert len(find_rows(model, new).samples) == 48


def test_a_number_that_is_always_the_same():
    numbers = striped(30, size=[row / 7 for row in range(30)])
    model = model_of(numbers)
    same = relabelled(numbers, dict.fromkeys(numbers.ids, 2.5), "size")
    assert refusal(model, same) == (
        "target 'size' is 2.5 in every row that the model was trained on: there is nothing to "
        "learn. Name another target."
    )


def too_few(n, what):
    return (
        f"of the {n} rows none with a label for 'label' is left to {what}: 15 % are set aside, "
        "rows of one group or of equal content together. Fine-tuning needs more rows, or smaller "
        "groups: keep the frozen model."
    )


def test_rows_that_cannot_be_divided(samples):
    grouped = changed(samples, columns={**samples.columns, "who": np.array(["one"] * N, object)})
    own = model_of(grouped, group="who", target="label", test_fraction=0)
    assert refusal(own, grouped) == too_few(N, "judge by")


def test_a_given_split_that_leaves_nothing_to_train_on(samples):
    parts = ["test", *["val"] * 4, "train"] * 10
    own = model_of(changed(samples, split=tuple(parts)))
    bare = relabelled(samples, {f"{row:03}": None for row in range(5, N, 6)})
    assert refusal(own, bare) == too_few(40, "train on")


def test_a_class_of_which_no_row_is_left_to_train_on(samples):
    parts = ["val" if kind == "left" else "train" for kind in slants(N)]
    parts[:3] = ["test"] * 3
    own = model_of(changed(samples, split=tuple(parts)))
    assert refusal(own, samples) == (
        "target 'label' has the class 'left' only in rows that are set aside to judge by, so the "
        "network would never see it. Label more rows of it, or say in a column 'split' which rows "
        "are train, val and test, and train the model again: pipeline train."
    )


def test_the_only_row_of_a_class_in_any_task_is_never_set_aside(model, samples):
    """A second task is not what rows are dealt by."""
    aside = named(find_rows(model, samples), "validation")
    for name in sorted(aside):
        seconds = [("rare" if own == name else "usual") for own in samples.ids]
        rows = find_rows(*with_second(model, samples, seconds))
        assert name in named(rows, "train")
        assert len(rows.validation) == 7


def with_second(model, samples, values):
    """The same model with a second task."""
    other = model_of(changed(samples, columns={"second": np.array(values, object)}), fusion="last")
    both = copy.copy(model)
    both.heads = model.heads | other.heads
    both.results = model.results | other.results
    columns = {**samples.columns, "second": np.array(values, object)}
    return both, changed(samples, columns=columns)
