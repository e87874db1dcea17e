"""Whatever a SOURCE is, every file in it is a row, a failure or counted."""

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.samples import IMAGE_SUFFIXES, SampleSet


def walked(root: Path) -> list[str]:
    """Images below a folder by a plain walk, hidden ones left out."""
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    shown = (name for name in names if not any(part[0] == "." for part in name.split("/")))
    return sorted(name for name in shown if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def labels(samples: SampleSet) -> list[str | None]:
    return samples.targets["label"].values.tolist()


def error(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_the_first_folder_below_the_root_is_the_class(tree):
    root = tree("owl/2.jpg", "owl/old/deep/1.jpg", "elk/1.png", "beside.jpg", "elk.v2/x.gif")
    samples = SampleSet.from_source(root)
    assert list(samples.ids) == walked(root)
    assert dict(zip(samples.ids, labels(samples), strict=True)) == {
        "beside.jpg": None,
        "elk/1.png": "elk",
        "elk.v2/x.gif": "elk.v2",
        "owl/2.jpg": "owl",
        "owl/old/deep/1.jpg": "owl",
    }
    assert samples.sources == tuple(root / name for name in samples.ids)
    assert (samples.root, samples.split, samples.failed) == (root, None, ())


def test_a_flat_folder_has_no_labels(tree):
    samples = SampleSet.from_folder(tree("1.jpg", "2.jpg"))
    assert samples.targets == {}
    assert samples.summary() == "2 images, no labels"
    assert "there are no labels" in error(samples.choose_targets)


def test_what_was_understood_is_said_in_one_line(tree):
    names = [f"elk/{n}.jpg" for n in range(787)] + [f"owl/{n}.jpg" for n in range(9)]
    samples = SampleSet.from_folder(tree(*names, "a.txt", "elk/b.TXT", "Thumbs.db"))
    assert samples.summary() == "796 images, 2 classes (smallest: owl, 9), 3 files skipped"
    assert samples.skipped == {".txt": 2, "Thumbs.db": 1}


def test_names_of_every_kind_are_found(tree):
    odd = [
        "a b.JPG",
        "ünï.jpeg",
        "🦉.png",
        "new\nline.Tiff",
        "x" * 251 + ".jpg",
        "100%.webp",
        "é.heic",
    ]
    root = tree(*[f"owl {n}/{name}" for n, name in enumerate(odd)], "owl,elk/back\\slash.jpg")
    samples = SampleSet.from_folder(root)
    assert list(samples.ids) == walked(root)
    assert len(samples) == 8
    assert all(source.exists() for source in samples.sources)


def test_what_is_no_image_is_counted_by_suffix(tree):
    root = tree(
        "owl/1.jpg", ".DS_Store", "owl/._1.jpg", ".ipynb_checkpoints/1.jpg", "__MACOSX/owl/1.jpg",
        "owl/Thumbs.db", "notes.txt", "a.tar.gz", "README",
    )  # fmt: skip
    samples = SampleSet.from_folder(root)
    assert samples.ids == ("owl/1.jpg",)
    assert samples.targets["label"].classes == ("owl",)
    assert samples.skipped == {
        "hidden": 3, "__MACOSX": 1, "Thumbs.db": 1, ".txt": 1, ".gz": 1, "without suffix": 1,
    }  # fmt: skip


def test_what_is_called_an_image_and_is_none_stands_in_the_ledger(tree):
    root = tree("owl/1.jpg", "v1.jpg/inside.png")
    (root / "owl/dangling.jpg").symlink_to("nowhere")
    (root / "owl/itself.jpg").symlink_to("itself.jpg")
    (root / "owl/folder.jpg").mkdir()
    os.mkfifo(root / "owl/pipe.jpg")
    (root / "elsewhere").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(os.path.relpath(root / "owl/plug.png"))
    Path(os.fsdecode(os.fsencode(root / "owl") + b"/caf\xe9.jpg")).touch()
    samples = SampleSet.from_folder(root)
    assert samples.ids == ("owl/1.jpg", "v1.jpg/inside.png")
    assert samples.failed == (
        ("owl/caf\\udce9.jpg", "its name is not UTF-8: rename it"),
        ("owl/dangling.jpg", "a link to nothing"),
        ("owl/folder.jpg", "a folder, not a file"),
        ("owl/itself.jpg", "a link to nothing"),
        ("owl/pipe.jpg", "not a regular file"),
        ("owl/plug.png", "not a regular file"),
    )
    assert samples.skipped == {"without suffix": 1}
    assert samples.summary().endswith("6 inputs unusable, 1 file skipped")
    assert all(name.encode("utf-8") for name, _ in samples.failed)


def test_a_class_folder_that_is_not_utf8_is_in_the_ledger(tree):
    root = tree("owl/1.jpg")
    odd = os.fsencode(root) + b"/\xff"
    os.mkdir(odd)
    Path(os.fsdecode(odd + b"/1.jpg")).touch()
    samples = SampleSet.from_folder(root)
    assert samples.ids == ("owl/1.jpg",)
    assert samples.failed == (("\\udcff/1.jpg", "its name is not UTF-8: rename it"),)


def test_links_are_followed_when_asked_for_and_loops_never(tree):
    far = tree("1.jpg", "deep/2.jpg", root="far")
    root = tree("owl/1.jpg", "owl/deep/2.jpg")
    (root / "linked").symlink_to(far)
    (root / "alias.jpg").symlink_to(far / "1.jpg")
    (root / "owl/loop").symlink_to(root)
    (root / "owl/up").symlink_to("..")
    (root / "owl/deep/above").symlink_to(root.parent)
    (far / "deep/back").symlink_to(far)
    (far / "deep/home").symlink_to(root)
    (root / "own.jpg").symlink_to("owl/1.jpg")
    loop = "a link back to a folder that is being listed"
    outside = "a link that leads out of the folder; --follow-outside reads it anyway"
    samples = SampleSet.from_folder(root, follow_outside=True)
    assert samples.ids == (
        "alias.jpg", "linked/1.jpg", "linked/deep/2.jpg", "owl/1.jpg", "owl/deep/2.jpg", "own.jpg",
    )  # fmt: skip
    loops = ("linked/deep/back", "linked/deep/home", "owl/deep/above", "owl/loop", "owl/up")
    assert samples.failed == tuple((name, loop) for name in loops)
    samples = SampleSet.from_folder(root)
    assert samples.ids == ("owl/1.jpg", "owl/deep/2.jpg", "own.jpg")
    assert samples.failed == (
        ("alias.jpg", outside), ("linked", outside), *((name, loop) for name in loops[2:]),
    )  # fmt: skip


def test_a_folder_too_deep_to_be_read_stands_in_the_ledger(tree):
    root = tree("owl/1.jpg")
    here = os.open(root, os.O_RDONLY)
    for _ in range(20):  # a path of more than 4096 bytes
        os.mkdir("d" * 250, dir_fd=here)
        here, above = os.open("d" * 250, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    samples = SampleSet.from_folder(root)
    assert samples.ids == ("owl/1.jpg",)
    ((name, reason),) = samples.failed
    assert name.startswith("ddd")
    assert reason == "the folder cannot be read: File name too long"


def test_a_linked_root_is_a_root(tree, tmp_path):
    tree("owl/1.jpg")
    (tmp_path / "link").symlink_to("photos")
    assert SampleSet.from_folder(tmp_path / "link").ids == ("owl/1.jpg",)
    assert SampleSet.from_folder(f"{tmp_path}/link/").sources == (tmp_path / "link/owl/1.jpg",)


@pytest.mark.parametrize("word", ["val", "valid", "validation", "Val"])
def test_split_folders_are_a_given_split_and_never_classes(tree, word):
    root = tree(
        "train/owl/1.jpg", "train/elk/sub/1.jpg", f"{word}/owl/2.jpg", "test/3.jpg", "4.jpg"
    )
    samples = SampleSet.from_folder(root)
    rows = dict(zip(samples.ids, zip(labels(samples), samples.split, strict=True), strict=True))
    assert rows == {
        "train/owl/1.jpg": ("owl", "train"),
        "train/elk/sub/1.jpg": ("elk", "train"),
        f"{word}/owl/2.jpg": ("owl", "val"),
        "test/3.jpg": (None, "test"),
        "4.jpg": (None, ""),
    }
    assert samples.summary() == (
        "5 images, 2 classes (smallest: elk, 1), 2 unlabelled, given split (2 train, 1 val, 1 test)"
    )


def test_a_class_beside_split_names_makes_them_classes(tree):
    samples = SampleSet.from_folder(tree("train/1.jpg", "car/1.jpg"))
    assert (samples.split, labels(samples)) == (None, ["car", "train"])


def test_folders_without_images_do_not_hide_a_given_split(tree):
    samples = SampleSet.from_folder(tree("train/owl/1.jpg", "test/owl/2.jpg", "docs/readme.txt"))
    assert samples.split == ("test", "train")


def test_a_folder_without_a_row_says_what_was_there(tree):
    assert error(SampleSet.from_folder, tree()) == (
        f"{tree()} is empty. Give a folder with images, best in one subfolder per class."
    )
    root = tree("a.txt", "b.txt", "c.pdf", ".hidden")
    assert (
        f"{root} holds no image; found: 2 .txt, 1 .pdf, 1 hidden. Accepted suffixes: .avif"
        in error(SampleSet.from_folder, root).replace("1 .pdf, 2 .txt", "2 .txt, 1 .pdf")
    )
    broken = tree(root="broken")
    (broken / "1.jpg").symlink_to("nowhere")
    assert error(SampleSet.from_source, broken).startswith(
        f"none of 1 input of {broken} can be used; the commonest reason: a link to nothing. Give"
    )


def test_a_folder_of_heic_is_no_empty_folder(tree):
    assert len(SampleSet.from_folder(tree("1.HEIC", "2.heif"))) == 2


def test_a_path_that_leads_nowhere_has_a_neighbour(tree):
    root = tree("1.jpg")
    assert error(SampleSet.from_source, root.parent / "photoz") == (
        f"{root.parent}/photoz does not exist. Did you mean '{root}'? Accepted: a folder of images "
        "(best in one subfolder per class), a .csv, .tsv or .parquet table with a column 'path', a "
        ".txt list of paths, or image files."
    )
    for impossible in ("x" * 5000, "a\0b"):
        assert "does not exist" in error(SampleSet.from_source, impossible)
    assert "no/such does not exist. Accepted" in error(SampleSet.from_source, "no/such")
    assert "does not exist" in error(SampleSet.from_table, root / "labels.csv")


def test_a_file_that_is_no_source_is_refused(tree):
    root = tree("notes.docx", "1.jpg")
    assert error(SampleSet.from_source, root / "notes.docx").startswith(
        f"{root}/notes.docx is neither a table nor an image. Accepted: a folder"
    )
    assert error(SampleSet.from_folder, root / "1.jpg") == (
        f"{root}/1.jpg is not a folder. SampleSet.from_source takes either."
    )
    assert "photos is not a file." in error(SampleSet.from_table, root)
    assert error(SampleSet.from_source, []).startswith("no source was given.")


def test_files_keep_their_order_and_are_listed_once(tree, monkeypatch):
    root = tree("b.jpg", "a.JPG", "notes.txt")
    monkeypatch.chdir(root)
    samples = SampleSet.from_source(["b.jpg", "./a.JPG", "notes.txt", "b.jpg"])
    assert samples.ids == ("b.jpg", "a.JPG")
    assert samples.skipped == {".txt": 1, "repeated row": 1}
    assert SampleSet.from_source("a.JPG").ids == ("a.JPG",)
    assert SampleSet.from_source([root / "a.JPG"]).ids == (f"{root}/a.JPG",)
    assert "does not exist. Did you mean 'b.jpg'?" in error(
        SampleSet.from_source, ["a.JPG", "c.jpg"]
    )
    assert error(SampleSet.from_source, ["a.JPG", root]).startswith(
        f"{root} is a folder among 2 sources. Give one folder alone, or files."
    )


def test_a_list_has_one_path_a_line(tree):
    root = tree("1.jpg", "sub/2.jpg")
    far = tree("3.jpg", root="far") / "3.jpg"
    lines = f"\ufeffsub/2.jpg\r\n\r\n1.jpg\n./1.jpg\n{far}\n../far/3.jpg\n{root}/1.jpg\n"
    (root / "list.txt").write_bytes(lines.encode() + b"caf\xe9.jpg\n")
    near = SampleSet.from_source(root / "list.txt")
    assert near.ids == ("sub/2.jpg", "1.jpg")
    assert [name for name, _ in near.failed] == [str(far), "../far/3.jpg", "caf\\udce9.jpg"]
    samples = SampleSet.from_source(root / "list.txt", follow_outside=True)
    assert samples.ids == ("sub/2.jpg", "1.jpg", str(far), "../far/3.jpg")
    assert all(source.exists() for source in samples.sources)
    assert samples.failed == (("caf\\udce9.jpg", "its name is not UTF-8: rename it"),)
    assert samples.skipped == {"repeated row": 2}
    (root / "empty.txt").write_text("\n\n")
    assert "empty.txt is empty. A list has one path a line." in error(
        SampleSet.from_source, root / "empty.txt"
    )


def test_lists_in_memory_mix_what_can_be_read():
    picture, array = Image.new("L", (4, 4)), np.zeros((4, 4, 3), np.uint8)
    samples = SampleSet.from_list(
        ["a/1.jpg", picture, array, b"PNG", Path("a/1.jpg")], {"y": [1, 2, 1, None, 2]}
    )
    assert samples.ids == ("a/1.jpg", "1", "2", "3", "a/1.jpg#2")
    assert samples.sources == (Path("a/1.jpg"), picture, array, b"PNG", Path("a/1.jpg"))
    assert samples.targets["y"].classes == (1, 2)
    assert SampleSet.from_list([picture] * 11).ids[0] == "00"
    assert SampleSet.from_list([]).ids == ()


def test_repeated_paths_never_take_the_name_of_another():
    samples = SampleSet.from_list(["a#2", "a", "a", "a"])
    assert samples.ids == ("a#2", "a", "a#3", "a#4")


def test_given_ids_are_kept_and_must_be_unique():
    assert SampleSet.from_list(["a.jpg", "b.jpg"], ids=["x", "y"]).ids == ("x", "y")
    assert error(SampleSet.from_list, ["a.jpg", "b.jpg"], ids=["x", "x"]) == (
        "the id 'x' stands more than once. Every row needs an id of its own."
    )
    assert "'sources' has 2 values, but there are 1 rows" in error(
        SampleSet.from_list, ["a.jpg", "b.jpg"], ids=["x"]
    )
    assert "'y' has 1 values, but there are 2 rows" in error(
        SampleSet.from_list, ["a.jpg", "b.jpg"], {"y": [1]}
    )


@pytest.mark.parametrize(
    ("item", "named"),
    [(None, "NoneType"), (3, "int"), (np.zeros((2, 2)), "array of shape (2, 2) and dtype float64")],
)
def test_an_input_that_cannot_be_read_is_named(item, named):
    assert error(SampleSet.from_list, ["a.jpg", item]) == (
        f"input 1 is of type {named}. Accepted: a path, a PIL image, bytes of an image file, or a "
        "uint8 array of shape (height, width) or (height, width, channels)."
    )


def test_arrays_are_uint8_images():
    for shape in [(3, 4, 5), (3, 4, 5, 3)]:
        samples = SampleSet.from_arrays(
            np.zeros(shape, np.uint8), {"y": ["a", "b", "a"]}, ids="xyz"
        )
        assert samples.ids == ("x", "y", "z")
        assert [source.shape for source in samples.sources] == [shape[1:]] * 3
    for bad in [
        np.zeros((3, 4, 4, 3)),
        np.zeros((3, 3, 4, 4), np.uint8),
        np.zeros((4, 4), np.uint8),
    ]:
        assert error(SampleSet.from_arrays, bad).startswith(
            f"images has the shape {bad.shape} and dtype {bad.dtype}. Accepted: uint8 of shape"
        )


def test_a_subset_takes_everything_along(tree):
    samples = SampleSet.from_folder(tree("train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "n.txt"))
    part = samples.subset([2, 0])
    assert part.ids == ("train/b/2.jpg", "test/a/3.jpg")
    assert part.sources == (samples.sources[2], samples.sources[0])
    assert (part.split, labels(part)) == (("train", "test"), ["b", "a"])
    assert (part.skipped, part.root) == ({}, samples.root)
    assert samples.subset(np.array([True, False, True])).ids == samples.subset([0, 2]).ids
    assert samples.subset([]).ids == ()


@pytest.mark.slow
def test_a_hundred_thousand_files_take_about_a_second(tree):
    root = tree(*[f"c{n % 20}/{n}.jpg" for n in range(100_000)])
    start = time.perf_counter()
    assert len(SampleSet.from_folder(root)) == 100_000
    assert time.perf_counter() - start < 5
