"""Odd inputs through the doors that users take: each is a row, a line of the ledger, or refused."""

import csv
import os
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from embedding_child import embed_forbidden, in_child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_inputs import FILES, FOLDERS, LABELS, RUNS, SECTIONS, TABLES
from pictures import encoded, picture
from small_world import (
    PREPROCESS,
    EagerBackbone,
    by_hand,
    layer_in,
    pixels,
    set_back,
    small_network,
    write_pictures,
)
from stores import model_of, names, store_of
from torch import nn

from pipeline.backbones.own import own_network
from pipeline.cache import CacheLock, EmbeddingStore
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.embedding import EmbeddingJob, embed
from pipeline.errors import BackboneError, BadInputError, InputError
from pipeline.model import heldout_table, write_table
from pipeline.samples import SampleSet, Target, guarded, unguarded
from pipeline.training import evaluate, train

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BACKBONE = EagerBackbone("small", small_network())
SKIP, FAIL = (EmbedOptions(precision="float32", on_bad_input=mode) for mode in ("skip", "fail"))
SHOWN: set[str] = set()


def shows(*cases):
    """Mark a test as that of some cases of the catalogue."""
    SHOWN.update(cases)
    return lambda test: test


def embedded(samples, cache, **options):
    """Embed, and give labels by id and the ledger, read by h5py alone."""
    embed(samples, BACKBONE, cache, options=replace(SKIP, **options)).close()
    with h5py.File(cache) as file:
        ids = file["ids"].asstr()[()].tolist()
        ledger = {entry["id"].decode(): entry["reason"].decode() for entry in file["failed"][()]}
        labels = file.get("targets/label", np.array([b""] * len(ids)))[()].tolist()
    return dict(zip(ids, labels, strict=True)), ledger


def refused_whole(samples, cache, reasons):
    """Under ``fail`` every bad input is named with its reason, and no cache is made."""
    with pytest.raises(BadInputError) as error:
        embed(samples, BACKBONE, cache, options=FAIL)
    assert dict(error.value.failures).keys() == reasons.keys()
    for name, reason in reasons.items():
        assert f"  {name}: {reason}" in str(error.value)
    assert not cache.exists()


@pytest.fixture
def photos(tmp_path):
    """One sound picture, in a class folder."""
    (tmp_path / "photos" / "owl").mkdir(parents=True)
    (tmp_path / "photos" / "owl" / "sound.png").write_bytes(encoded(picture(seed=5), "PNG"))
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache.h5"


# ------------------------------------------------------------------------------ the catalogue


def test_the_readme_has_a_line_for_every_case_and_no_other():
    section = README.partition("## What happens to odd inputs\n")[2].partition("\n## ")[0]
    printed = [line for line in section.splitlines() if re.match(r"\| [^|]*\w", line)]
    assert printed == [
        line for title, lines in SECTIONS.items() for line in (f"| {title} | |", *lines)
    ]
    assert sum(map(len, SECTIONS.values())) >= 40


@pytest.mark.parametrize("odd", FILES, ids=str)
def test_an_odd_picture_file(odd, photos, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (photos / "elk").mkdir()
    (photos / "elk" / "odd.jpg").write_bytes(odd.content)
    samples = SampleSet.from_source(photos)
    if isinstance(odd.expected, str):
        refused_whole(samples, cache, {"elk/odd.jpg": odd.expected})
        labels, ledger = embedded(samples, cache)
        assert labels == {"owl/sound.png": b"owl"}
        assert ledger.keys() == {"elk/odd.jpg"}
        assert ledger["elk/odd.jpg"].startswith(odd.expected)
    else:
        assert embedded(samples, cache, on_bad_input="fail") == (
            {"elk/odd.jpg": b"elk", "owl/sound.png": b"owl"}, {},
        )  # fmt: skip
        shown = [odd.expected, np.asarray(picture(seed=5))]
        for tap, values in by_hand(BACKBONE, shown).items():
            found = layer_in(cache, f"small/{tap}")
            np.testing.assert_allclose(found, values, rtol=3e-3, atol=3e-3)


@pytest.mark.parametrize("odd", FOLDERS, ids=str)
def test_an_odd_file_or_folder(odd, photos, cache):
    odd.make(photos)
    samples = SampleSet.from_source(photos)
    assert samples.skipped == odd.skipped
    if odd.failed:
        refused_whole(samples, cache, odd.failed)
    labels, ledger = embedded(samples, cache, on_bad_input="skip" if odd.failed else "fail")
    assert labels == dict.fromkeys(sorted(["owl/sound.png", *odd.ids]), b"owl")
    assert ledger == odd.failed
    if odd.what == "the same picture twice":
        np.testing.assert_array_equal(*layer_in(cache, "small/high"))
    if "--follow-outside" in odd.happens:
        samples = SampleSet.from_source(photos, follow_outside=True)
        assert len(embedded(samples, cache)[0]) == 2
        assert not samples.failed


@pytest.mark.parametrize("odd", TABLES, ids=str)
def test_an_odd_table_or_list(odd, tmp_path, cache):
    write_pictures(tmp_path, {"t/1.png": 1, "t/2.png": 2, "far.png": 3, "beyond/far.png": 4})
    (tmp_path / "t" / "far").symlink_to(tmp_path / "beyond")
    file = tmp_path / "t" / odd.name
    file.write_bytes(odd.content)
    if odd.refusal:
        with pytest.raises(InputError, match=odd.refusal):
            SampleSet.from_source(file)
        return
    samples = SampleSet.from_source(file)
    targets = samples.targets.get("label")
    expected = odd.labels or dict.fromkeys(("1.png", "2.png"))
    if targets is not None:
        found = dict(zip(samples.ids, targets.values.tolist(), strict=True))
        assert {name: found[name] for name in expected} == expected
    if odd.failed:
        refused_whole(samples, cache, odd.failed)
    labels, ledger = embedded(samples, cache)
    assert labels.keys() == expected.keys()
    assert ledger == odd.failed
    outside = [name for name in odd.failed if odd.failed[name].endswith("reads it anyway")]
    for name in outside:
        followed = SampleSet.from_source(file, follow_outside=True)
        assert (name in followed.ids, followed.failed) == (True, ())


def test_what_the_caller_names_in_python_or_on_the_command_line_is_read_anywhere(photos):
    far = photos.parent / "far.png"
    shutil.copy(photos / "owl" / "sound.png", far)
    (photos / "link.png").symlink_to(far)
    for samples in (
        SampleSet.from_list([far, photos / "link.png", photos / "../far.png"]),
        SampleSet.from_source([far, photos / "link.png", photos / "../far.png"]),
    ):
        assert len(samples) == 3
        assert samples.failed == ()


# ------------------------------------------------------------------------------------- labels


def test_every_case_of_labels_and_runs_has_its_test():
    assert {*LABELS, *RUNS} == SHOWN


@shows("one class")
def test_one_class_is_refused():
    with pytest.raises(InputError, match="has only one class, 'owl', in every row: there is not"):
        train(store_of(12, label=np.array(["owl"] * 12)))


@shows("a class of one sample")
def test_a_single_sample_is_trained_on_and_never_tested():
    model = model_of(store_of(31, label=["elk", "owl"] * 15 + ["rare"]))
    assert model.split.untested == ("rare",)
    assert names(31)[30] in model.split.train_ids
    assert "rare" in model.classes_.tolist()


@shows("a label at test time that was never trained on")
def test_an_unseen_label_counts_as_wrong():
    model = model_of()
    labels = store_of().targets["label"].values.copy()
    labels[:15] = "yak"
    layers = {name: store_of().values(name) for name in store_of().layers}
    other = EmbeddingStore.from_arrays(layers, names(60), {"label": labels}, specs=model.specs)
    figures = evaluate(model, other, include_training=True).results["label"].figures
    assert figures["accuracy"] == np.mean(model.predict(other) == labels)
    assert figures["accuracy"] <= 0.75


@shows("NaN among numbers")
def test_nan_among_numbers_is_a_missing_label():
    ages = np.linspace(1, 9, 60) + 0.25
    ages[:20] = np.nan
    model = model_of(store_of(60, age=ages), fusion="concat")
    found = model.results["age"]
    assert (found.kind, found.n_train + found.n_test) == ("number", 40)


@shows("an infinite number")
def test_infinite_numbers_are_refused():
    ages = np.linspace(1, 9, 60) + 0.25
    ages[7] = np.inf
    with pytest.raises(InputError, match=r"target 'age' has infinite numbers: inf \(007\.jpg\)\."):
        model_of(store_of(60, age=ages))


@shows("fractions that are asked for as classes")
def test_fractions_are_no_classes():
    store = store_of(60, age=np.arange(60) / 4)
    with pytest.raises(InputError, match=r"has fractions: 0\.25 \(001\.jpg\), .* the kind number"):
        train(store, TrainOptions(target_kind=("age=class",)))


@shows("a column without a value")
def test_a_column_of_nothing_is_refused():
    with pytest.raises(InputError, match="target 'label' has no value in any of its 60 rows"):
        model_of(store_of(60, label=[None] * 60))


@pytest.mark.parametrize(
    "classes",
    [
        ("owl, grey", "elk\nold"),
        (-1, 1),
        (3, 20),
        ("=A1", "'=A1"),
        ("-1|x", "007"),
        ("-0.5", "0.5"),
    ],
    ids=str,
)
def test_labels_come_back_from_predictions_as_they_were(classes, tmp_path):
    """Through training, `predictions.csv` and a table that is read again."""
    column = np.array([classes[row % 2] for row in range(60)], dtype=object)
    store = store_of(60, label=column)
    model = train(store, TrainOptions(head="ridge", target_kind=("label=class",)))
    assert set(model.predict(store).tolist()) == set(classes)
    header, rows = heldout_table(model, store)
    write_table(tmp_path / "p.csv", ["path", *header[1:]], rows)
    again = SampleSet.from_table(tmp_path / "p.csv")
    for name in ("label", "prediction"):
        kept = Target.decide(name, again.columns[name], "class")
        truth = Target.decide(name, [str(label) for label in column], "class")
        assert set(kept.classes) <= set(truth.classes)
    assert again.columns["label"].tolist() == [
        str(column[names(60).index(path)]) for path in again.ids
    ]
    kinds = {name: again.targets[name].kind for name in ("label", "prediction")}
    assert kinds == dict.fromkeys(kinds, Target.decide("x", column.astype(str)).kind)
    assert list(again.columns)[2:] == [str(label) for label in model.classes_]


CELL = st.one_of(
    st.text("'=+-@|0.e \nä", max_size=6),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
@given(cells=st.lists(CELL, min_size=1, max_size=8), header=CELL)
def test_whatever_a_cell_holds_it_comes_back_and_is_no_formula(tmp_path, cells, header):
    file = tmp_path / "t.csv"
    header = f"{header.strip()}!"  # names of columns are stripped
    write_table(file, ["path", header], [[f"{n}.jpg", cell] for n, cell in enumerate(cells)])
    samples = SampleSet.from_table(file)
    assert list(samples.columns) == [header]
    assert samples.columns[header].tolist() == [cell or None for cell in cells]
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.reader(lines):
            for cell in row:
                assert cell[:1] not in ("=", "+", "-", "@") or isinstance(float(cell), float)


@given(CELL)
def test_guarding_loses_nothing(cell):
    assert unguarded(guarded(cell)) == cell
    assert guarded(cell) in (cell, f"'{cell}")


def test_numbers_below_zero_stay_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("path,age\n1.jpg,-0.5\n2.jpg,+3\n3.jpg,-1e-3\n")
    target = SampleSet.from_table(tmp_path / "t.csv").targets["age"]
    assert (target.kind, target.values.tolist()) == ("number", [-0.5, 3.0, -0.001])
    write_table(tmp_path / "u.csv", ["path", "age"], [["1.jpg", "-0.5"], ["2.jpg", "-3"]])
    assert (tmp_path / "u.csv").read_text().splitlines() == ["path,age", "1.jpg,-0.5", "2.jpg,-3"]


# -------------------------------------------------------------------------------- while it runs


def run_while(change, samples, cache):
    """Embed, with a change of the files between the first look at them and the reading."""
    job = EmbeddingJob(samples, cache, SKIP, BACKBONE)
    with CacheLock(cache):
        job.prepare()
        change()
        return job.execute()


@shows("no permission")
def test_a_forbidden_file_is_listed_also_where_root_runs():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        photos = write_pictures(Path(folder) / "photos", [1, 2])
        secret = photos / "b" / "001.png"
        secret.chmod(0)
        assert in_child(embed_forbidden, photos, Path(folder) / "cache.h5") == 0
        with h5py.File(Path(folder) / "cache.h5") as file:
            assert file["ids"].asstr()[()].tolist() == ["a/002.png"]
            (entry,) = file["failed"][()]
        assert (entry["id"], entry["reason"]) == (b"b/001.png", b"permission denied")
        secret.chmod(0o644)
        labels, ledger = embedded(SampleSet.from_folder(photos), Path(folder) / "cache.h5")
        assert (len(labels), ledger) == (2, {})


@shows("a file that vanishes during the run")
def test_a_vanishing_file_is_listed_and_tried_again(photos, cache):
    write_pictures(photos, {"owl/odd.png": 1})
    samples = SampleSet.from_source(photos)
    summary = run_while((photos / "owl" / "odd.png").unlink, samples, cache)
    assert (summary.rows, summary.failed) == (1, 1)
    with EmbeddingStore.open(cache) as store:
        assert [(one.id, one.reason) for one in store.failed] == [("owl/odd.png", "no such file")]
    write_pictures(photos, {"owl/odd.png": 1})
    assert len(embedded(SampleSet.from_source(photos), cache)[0]) == 2


@shows("a file that changes during the run")
def test_a_changing_file_is_the_row_of_what_was_read(photos, cache):
    write_pictures(photos, {"owl/odd.png": 1})
    samples = SampleSet.from_source(photos)
    run_while(lambda: write_pictures(photos, {"owl/odd.png": 2}), samples, cache)
    assert row_is_of(2, cache)
    assert run_while(lambda: None, samples, cache).images_per_second is None  # nothing to do
    write_pictures(photos, {"owl/odd.png": 3})  # as if it changed once it had been read
    set_back(photos / "owl" / "odd.png")
    run_while(lambda: None, samples, cache)
    assert row_is_of(3, cache)


def row_is_of(seed, cache):
    (expected,) = by_hand(BACKBONE, [pixels(seed)])["high"]
    return np.allclose(layer_in(cache, "small/high")[0], expected, rtol=3e-3, atol=3e-3)


class Multiplied(nn.Module):
    """The mean of each channel, times a number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by, self.top = by, nn.Identity()

    def forward(self, x):
        return self.top(x.mean(dim=(2, 3)) * self.by)


@shows("a network that gives NaN", "a value beyond float16")
@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        (float("nan"), "layer odd/top of 'owl/sound.png' holds nan: the network gives no finite"),
        (
            1e7,
            r"layer odd/top of 'owl/sound.png' holds .*, but float16 stores at most 65504\. "
            "Store wider numbers: --store-dtype float32",
        ),
    ],
)
def test_a_number_that_cannot_be_stored_stops_the_run(photos, cache, by, sentence):
    backbone = EagerBackbone("odd", own_network(Multiplied(by), ["top"], PREPROCESS))
    for options in (SKIP, FAIL):
        with pytest.raises(BackboneError, match=sentence):
            embed(SampleSet.from_source(photos), backbone, cache, options=options)
        assert not cache.exists()


def test_a_raised_limit_of_pixels_tries_a_large_picture_again(photos, cache):
    (photos / "owl" / "tiny.png").write_bytes(encoded(picture(8, 8), "PNG"))
    samples = SampleSet.from_source(photos)
    reason = "60 x 40 pixels are more than the limit of 2,399: raise it with --max-pixels"
    labels, ledger = embedded(samples, cache, max_pixels=2399)
    assert (list(labels), ledger) == (["owl/tiny.png"], {"owl/sound.png": reason})
    labels, ledger = embedded(samples, cache, max_pixels=2400)
    assert (list(labels), ledger) == (["owl/sound.png", "owl/tiny.png"], {})
    with EmbeddingStore.open(cache) as store:
        assert "max_pixels" not in str(store.specs["small"].to_json())
    labels, ledger = embedded(samples, cache, max_pixels=1)  # a limit takes no row away
    assert (len(labels), ledger) == (2, {})
