"""Tables keep their rows in order and their cells as written."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.samples import SampleSet


@pytest.fixture
def write(tmp_path: Path):
    def save(text: str | bytes, name: str = "labels.csv") -> Path:
        content = text.encode() if isinstance(text, str) else text
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return save


def error(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_rows_stand_in_the_order_of_the_table(write):
    file = write("path,label,age\nb/2.jpg,owl,1.5\na/1.jpg,,2\n./c//3.jpg,elk,\n")
    samples = SampleSet.from_source(file)
    assert samples.ids == ("b/2.jpg", "a/1.jpg", "c/3.jpg")
    assert samples.sources == tuple(file.parent / name for name in samples.ids)
    assert samples.targets["label"].values.tolist() == ["owl", None, "elk"]
    np.testing.assert_array_equal(samples.targets["age"].values, [1.5, 2, np.nan])
    assert samples.root == file.parent
    assert samples.summary() == "3 images, columns label, age"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_marks_are_recognised(write, delimiter, start, end):
    rows = [["label", "path"], ["a,b;c", "x 1.jpg"], ["007", "ü.jpg"]]
    lines = [delimiter.join(f'"{cell}"' for cell in row) for row in rows]
    samples = SampleSet.from_table(write(start + end.join(lines) + end))
    assert samples.ids == ("x 1.jpg", "ü.jpg")
    assert samples.targets["label"].values.tolist() == ["a,b;c", "007"]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(cells=st.lists(CELL, min_size=1, max_size=8), delimiter=st.sampled_from(",;\t"))
def test_cells_are_read_as_the_csv_module_reads_them(tmp_path, cells, delimiter):
    file = tmp_path / "any.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, delimiter=delimiter)
        table.writerow(["path", "label"])
        table.writerows((f"{row}.jpg", cell) for row, cell in enumerate(cells))
    with file.open(newline="", encoding="utf-8") as lines:
        cells = [row[1] or None for row in csv.reader(lines, delimiter=delimiter)][1:]
    oracle = [cell and re.sub(r"^'('*[=+@-])", r"\1", cell) for cell in cells]
    assert SampleSet.from_table(file).columns["label"].tolist() == oracle


@pytest.mark.parametrize("index", [True, False])
def test_parquet_agrees_with_pandas(tmp_path, index):
    frame = pd.DataFrame(
        {
            "path": ["1.jpg", "2.jpg", "3.jpg"],
            "label": pd.Categorical(["owl", None, "elk"]),
            "stars": pd.array([1, None, 3], dtype="Int64"),
            "weight": [1.5, np.nan, 2.5],
            "wild": [True, False, True],
            "code": ["007", "012", ""],
            "tags": [["a", "b"], [], None],
        },
        index=["x", "y", "z"],
    )
    frame.to_parquet(tmp_path / "t.parquet", index=index)
    samples = SampleSet.from_source(tmp_path / "t.parquet")
    names = [name for name in samples.columns if name != "tags"]
    kinds = {name: target.kind for name, target in samples.choose_targets(names).items()}
    assert kinds == {
        "label": "class", "stars": "class", "weight": "number", "wild": "class", "code": "class",
    }  # fmt: skip
    assert samples.columns["stars"].tolist() == [1, None, 3]
    assert samples.columns["wild"].tolist() == [True, False, True]
    assert samples.columns["code"].tolist() == ["007", "012", None]
    tags = samples.choose_targets(["tags"], {"tags": "multilabel"})["tags"]
    assert tags.values.tolist() == [("a", "b"), (), None]
    again = SampleSet.from_frame(frame, root=tmp_path)
    assert again.sources == samples.sources
    assert {n: c.tolist() for n, c in again.columns.items()} == {
        n: c.tolist() for n, c in samples.columns.items()
    }


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pl.LazyFrame, pa.table])
def test_frames_of_every_library_say_the_same(make, tmp_path):
    frame = make({"path": ["1.jpg", f"{tmp_path}/2.jpg", "/far/3.jpg"], "n": [1.5, None, 2.5]})
    samples = SampleSet.from_frame(frame, root=tmp_path)
    assert samples.ids == ("1.jpg", "2.jpg", "/far/3.jpg")
    assert samples.sources[1:] == (tmp_path / "2.jpg", Path("/far/3.jpg"))
    np.testing.assert_array_equal(samples.targets["n"].values, [1.5, np.nan, 2.5])
    inside = SampleSet.from_frame(frame, root=tmp_path, follow_outside=False)
    assert [name for name, _ in inside.failed] == ["/far/3.jpg"]


def test_what_is_no_frame_is_refused():
    assert error(SampleSet.from_frame, {"path": ["1.jpg"]}).startswith(
        "a dict is no data frame. Accepted: pandas, polars, pyarrow"
    )


def test_the_index_of_pandas_is_no_target(write):
    samples = SampleSet.from_table(write(",path,species\n0,1.jpg,owl\n1,2.jpg,elk\n"))
    assert list(samples.choose_targets()) == ["species"]


def test_rows_that_name_no_file_of_ours_stand_in_the_ledger(write):
    file = write(
        "path,label\n,owl\n/etc/passwd,owl\n../up.jpg,elk\na/../../up.jpg,elk\n.,elk\nok.jpg,elk\n,elk\n"
    )
    samples = SampleSet.from_table(file)
    outside = "leads out of the folder of the table; --follow-outside reads it anyway"
    assert samples.ids == ("ok.jpg",)
    assert samples.failed == (
        ("(row 1)", "no path in this row"),
        ("/etc/passwd", outside),
        ("../up.jpg", outside),
        ("../up.jpg (row 4)", outside),
        (".", "a folder, not a file"),
        ("(row 7)", "no path in this row"),
    )
    free = SampleSet.from_table(file, follow_outside=True)
    assert free.ids == ("/etc/passwd", "../up.jpg", "ok.jpg")
    assert free.sources[0] == Path("/etc/passwd")


def test_a_link_out_of_the_folder_is_followed_only_when_asked_for(write, tmp_path):
    root = tmp_path / "photos"
    for name in ("photos/own/1.jpg", "far/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (root / "file.jpg").symlink_to("../far/2.jpg")
    (root / "folder").symlink_to("../far")
    (root / "alias.jpg").symlink_to("own/1.jpg")
    (root / "up").symlink_to("..")
    (tmp_path / "linked").symlink_to(root)
    rows = ["file.jpg", "folder/2.jpg", "alias.jpg", "up/photos/own/1.jpg", "up/far/2.jpg"]
    write("\n".join(["path", *rows]), "photos/t.csv")
    write("\n".join(rows), "photos/t.txt")
    for folder in (root, tmp_path / "linked"):
        for file, what in ((folder / "t.csv", "table"), (folder / "t.txt", "list")):
            samples = SampleSet.from_source(file)
            reason = f"leads out of the folder of the {what}; --follow-outside reads it anyway"
            assert samples.ids == ("alias.jpg", "up/photos/own/1.jpg")
            assert samples.failed == tuple((name, reason) for name in (rows[0], rows[1], rows[4]))
            assert SampleSet.from_source(file, follow_outside=True).ids == tuple(rows)


def test_a_file_that_stands_twice_is_one_row(write):
    file = write("path,label\n1.jpg,owl\n./1.jpg,owl\n1.jpg,elk\n2.jpg,elk\n")
    samples = SampleSet.from_table(file)
    assert samples.ids == ("1.jpg", "2.jpg")
    assert samples.targets["label"].values.tolist() == ["owl", "elk"]
    assert samples.failed == (("1.jpg (row 3)", "stands in row 1 too, with other values"),)
    assert samples.summary() == (
        "2 images, 2 classes (smallest: elk, 1), 1 input unusable, 1 repeated row"
    )


def test_a_column_of_parts_is_a_given_split(write):
    text = "path,label,split\n1.jpg,owl,Train\n2.jpg,elk,validation\n3.jpg,elk,\n4.jpg,elk,test\n"
    samples = SampleSet.from_table(write(text))
    assert samples.split == ("train", "val", "", "test")
    assert list(samples.columns) == ["label"]
    other = SampleSet.from_table(write(text.replace("Train", "left")))
    assert (other.split, list(other.columns)) == (None, ["label", "split"])


def test_a_table_without_paths_lists_its_columns(write):
    assert error(SampleSet.from_table, write("Paths;label\n1.jpg;owl\n")).endswith(
        "labels.csv has no column 'path'. Did you mean 'Paths'? Its columns: Paths, label. A table "
        "needs a column 'path' with paths relative to it, one row a file."
    )


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        (b"", "t.csv", "t.csv is empty. A table needs a column 'path'"),
        (b"\n \n", "t.csv", "t.csv is empty."),
        (b"path,label\n", "t.csv", "t.csv has a header and no rows."),
        (b"path,path\n1.jpg,2.jpg\n", "t.csv", "has more than one column called 'path'. Rename"),
        (b"path,label\n1.jpg,\xfcber\n", "t.csv", "t.csv is not UTF-8 text. Save it as UTF-8"),
        ("path\n1.jpg\n".encode("utf-16"), "t.csv", "t.csv is not UTF-8 text."),
        (
            b"path,label\n1.jpg,a,b\n",
            "t.csv",
            "cannot be read as CSV: CSV parse error: Expected 2 columns, got 3",
        ),
        (b"\nlabel,path\n", "t.csv", "t.csv has a header and no rows."),
        (b"path\n../1.jpg\n../2.jpg\n", "t.tsv", "none of 2 inputs of "),
        (b"PAR1 not really", "t.parquet", "t.parquet is not a Parquet file: "),
    ],
)
def test_a_table_that_cannot_be_read_says_why(write, content, name, sentence):
    assert sentence in error(SampleSet.from_source, write(content, name))


def test_a_bad_byte_far_down_is_found(write):
    lines = b"path,label\n" + b"".join(b"%d.jpg,a\n" % n for n in range(200_000))
    file = write(lines + b"x.jpg,\xfc\n")
    assert "cannot be read as CSV" in error(SampleSet.from_table, file)
