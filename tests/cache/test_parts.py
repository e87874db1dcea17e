"""Parts are whole or absent, and a damaged one is never trusted."""

import dataclasses
import json
import os

import numpy as np
import pytest
from cache_making import LAYERS, SPECS, assert_holds, inputs_of, vectors, write_batch

from pipeline.cache import PartFolder, merge
from pipeline.errors import CacheMismatchError

FILES = {"a.jpg": "A", "é/b\udcff.jpg": "B", "c.jpg": "C", "d.jpg": "D"}


@pytest.fixture
def folder(tmp_path):
    return PartFolder(tmp_path / "cache.h5")


def test_a_part_reads_back_as_it_was_written(folder):
    settings = {"batch_size": 4, "engine": "openvino", "device": "cpu"}
    write_batch(
        folder, 8, FILES, failed={"c.jpg": "truncated"}, copied=["a.jpg"], settings=settings
    )
    (part,), dropped = folder.read(SPECS.values())
    assert dropped == 0
    assert (part.first_row, part.ids, part.layers) == (8, tuple(FILES), LAYERS)
    assert (part.failed, part.copied, part.embedded()) == ({2: "truncated"}, (0,), [1, 3])
    assert (part.specs, part.settings) == (SPECS, settings)
    np.testing.assert_array_equal(part.inputs, inputs_of(list(FILES.values())))
    for layer, width in LAYERS.items():
        np.testing.assert_array_equal(part.vectors()[layer], vectors(["B", "D"], layer, width))


def test_the_bytes_of_a_part_can_be_read_without_us(folder):
    part = write_batch(folder, 0, FILES)
    content = part.path.read_bytes()
    magic, rest = content.split(b"\n", 1)
    length = int.from_bytes(rest[:8], "little")
    header, data = json.loads(rest[8 : 8 + length]), rest[8 + length : -16]
    assert magic == b"transfer-pipeline part 1"
    assert header["ids"] == list(FILES)
    rows = np.frombuffer(data, np.float16).reshape(4, 8)
    contents = list(FILES.values())
    np.testing.assert_array_equal(rows[:, :5], vectors(contents, "net/low", 5))
    np.testing.assert_array_equal(rows[:, 5:], vectors(contents, "net/high", 3))


def test_the_same_batch_goes_to_the_same_name_with_the_same_bytes(folder):
    first = write_batch(folder, 0, FILES)
    content = first.path.read_bytes()
    again = write_batch(folder, 0, FILES)
    assert again.path == first.path
    assert again.path.read_bytes() == content
    assert folder.count() == 1


def test_another_content_of_the_same_rows_goes_to_another_name(folder):
    old = write_batch(folder, 0, FILES)
    new = write_batch(folder, 0, {**FILES, "a.jpg": "changed"})
    assert old.path != new.path
    folder.drop(old)
    assert [part.path for part in folder.read().sound] == [new.path]


def test_parts_come_in_the_order_of_writing_so_that_the_newer_one_counts(folder):
    for turn, first_row in enumerate((12, 4, 1_000_000_000, 0)):
        part = write_batch(folder, first_row, FILES)
        os.utime(part.path, ns=(0, turn // 2))
    found = [part.first_row for part in folder.read().sound]
    assert found == [4, 12, 0, 1_000_000_000]


def test_of_two_parts_that_hold_an_id_the_newer_content_is_merged(tmp_path, folder):
    stale = write_batch(folder, 4, {"a": "stale", "b": "B"})
    os.utime(stale.path, ns=(0, 0))
    write_batch(folder, 0, {"new": "N", "a": "fresh"})
    files = {"new": "N", "a": "fresh", "b": "B"}
    parts = folder.read().sound
    merge(tmp_path / "cache.h5", ids=list(files), layers=LAYERS, specs=SPECS, parts=parts)
    assert_holds(tmp_path / "cache.h5", files)


def test_every_flipped_byte_of_a_part_is_found(folder, caplog):
    part = write_batch(folder, 0, {"a": "A"})
    content = part.path.read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        part.path.write_bytes(damaged)
        assert folder.read() == ([], 1)
        assert folder.count() == 0
    assert "1 damaged parts" in caplog.text


@pytest.mark.parametrize("kept", [0, 1, 15, 16, 30, -1])
def test_a_part_that_was_cut_short_is_dropped_and_counted(folder, kept):
    part = write_batch(folder, 0, FILES)
    write_batch(folder, 4, FILES)
    part.path.write_bytes(part.path.read_bytes()[:kept])
    sound, dropped = folder.read()
    assert ([part.first_row for part in sound], dropped) == ([4], 1)


def test_half_written_files_of_a_killed_run_are_removed(folder):
    part = write_batch(folder, 0, FILES)
    leftover = folder.path / f".{part.path.name}.0123abcd.tmp"
    leftover.write_bytes(b"half")
    assert len(folder.read().sound) == 1
    assert not leftover.exists()


def test_a_part_of_another_spec_is_an_error_that_names_the_difference(folder):
    write_batch(folder, 0, FILES)
    other = dataclasses.replace(SPECS["net"], precision="bfloat16")
    with pytest.raises(CacheMismatchError) as raised:
        folder.read([other])
    assert "precision is float32 here and bfloat16 there" in str(raised.value)
    assert folder.count() == 1


def test_a_part_of_a_backbone_that_nobody_asked_for_is_an_error(folder):
    write_batch(folder, 0, FILES)
    with pytest.raises(CacheMismatchError, match="no backbone net"):
        folder.read([dataclasses.replace(SPECS["net"], backbone="other")])


def test_an_array_of_another_type_or_length_is_refused(folder):
    arrays = {"net/low": np.zeros((4, 5), np.float32)}
    common = {"first_row": 0, "inputs": inputs_of(["A"] * 4), "specs": SPECS}
    with pytest.raises(ValueError, match="is float32 of shape"):
        folder.write(arrays, ids=list(FILES), **common)
    with pytest.raises(ValueError, match="not float16 of 4 rows"):
        folder.write({"net/low": np.zeros((3, 5), np.float16)}, ids=list(FILES), **common)


def test_a_folder_that_was_lost_is_an_empty_one(folder):
    write_batch(folder, 0, FILES)
    folder.remove()
    assert folder.read() == ([], 0)
    write_batch(folder, 4, FILES)
    assert folder.count() == 1
