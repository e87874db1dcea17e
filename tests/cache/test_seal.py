"""Damage of anything that steers the reader is found before HDF5 sees a byte."""

import json

import h5py
import numpy as np
import pytest
from cache_making import embed, ids_of, labels_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache import EmbeddingStore, check_seal
from pipeline.cache.seal import seal, user_block_size
from pipeline.digest import digest_bytes
from pipeline.errors import CacheDamagedError, CacheError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("seal") / "sound.h5"
    embed(path, {id: id for id in ids_of(30)}, targets=labels_of(30))
    return path


@pytest.fixture
def copy(sound, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(sound.read_bytes())
    return path


def extents_of(path):
    return json.loads(path.read_bytes().split(b"\n")[1])["extents"]


def test_the_seal_says_size_extents_and_digest_of_all_other_bytes(sound):
    content = sound.read_bytes()
    value = json.loads(content.split(b"\n")[1])
    assert value["format_version"] == 1
    assert value["size"] == len(content)
    with h5py.File(sound) as file:
        layers = [file["layers/net/low"], file["layers/net/high"]]
        assert value["extents"] == sorted([d.id.get_offset(), d.nbytes] for d in layers)
    rest = bytearray(content.replace(value["digest"].encode(), b"0" * 32, 1))
    for offset, size in reversed(value["extents"]):
        del rest[offset : offset + size]
    assert digest_bytes(rest).hex() == value["digest"]


def test_every_byte_that_steers_the_reader_is_guarded(sound, copy):
    content = sound.read_bytes()
    extents = extents_of(sound)
    layers = {place for offset, size in extents for place in range(offset, offset + size)}
    places = [*range(200), *range(200, 4096, 97), *range(4096, len(content), 11)]
    for place in places:
        if place in layers:
            continue
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        copy.write_bytes(damaged)
        with pytest.raises(CacheError):
            EmbeddingStore.open(copy)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damage_of_any_kind_is_read_as_sound(sound, tmp_path_factory, data):
    content = bytearray(sound.read_bytes())
    copy = sound.with_name("fuzzed.h5")
    kind = data.draw(st.sampled_from(["bits", "run", "cut", "grown"]))
    start = data.draw(st.integers(0, len(content) - 1))
    if kind == "bits":
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
            content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "run":
        stop = min(len(content), start + data.draw(st.integers(1, 600)))
        content[start:stop] = bytes([data.draw(st.sampled_from([0, 255]))]) * (stop - start)
    elif kind == "cut":
        del content[start:]
    else:
        content += bytes(start)
    copy.write_bytes(content)
    if bytes(content) == sound.read_bytes():
        return
    try:
        with EmbeddingStore.open(copy) as store:
            assert store.damaged()
            with pytest.raises(CacheDamagedError):
                store.matrix()
    except CacheError:
        pass


@pytest.mark.parametrize("kept", [5000, -1, 4096])
def test_a_cache_that_was_cut_short_is_said_so(copy, kept):
    copy.write_bytes(copy.read_bytes()[:kept])
    with pytest.raises(CacheDamagedError, match=r"copy\.h5 is cut short: it has [\d,]+ bytes and"):
        EmbeddingStore.open(copy)


def test_a_cache_that_has_grown_is_said_so(copy):
    with copy.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CacheDamagedError, match="has grown"):
        EmbeddingStore.open(copy)


def test_a_cache_that_another_program_wrote_to_is_said_so_with_the_way_out(copy):
    with h5py.File(copy, "r+") as file:
        file["targets/label"].attrs["kind"] = "number"
    with pytest.raises(CacheDamagedError, match=r"another program .* embed again"):
        EmbeddingStore.open(copy)


def test_an_hdf5_file_of_others_is_no_cache(tmp_path):
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["ids"] = ["a"]
    with pytest.raises(CacheError, match="an HDF5 file, but not a cache of ours"):
        EmbeddingStore.open(path)


@pytest.mark.parametrize("content", [b"", b"id,label\n", b"\0" * 9000])
def test_any_other_file_is_no_cache(tmp_path, content):
    path = tmp_path / "other.h5"
    path.write_bytes(content)
    with pytest.raises(CacheError, match="not a cache: it lacks the seal"):
        EmbeddingStore.open(path)


def test_a_newer_format_is_said_with_the_version_that_this_program_reads(copy):
    content = copy.read_bytes().replace(b'"format_version": 1', b'"format_version": 2', 1)
    copy.write_bytes(content)
    with pytest.raises(CacheError, match=r"format 2; this program reads format 1\. Upgrade"):
        EmbeddingStore.open(copy)


@pytest.mark.parametrize(
    "line", [b"not json", b"{}", b"[1]", b'{"format_version": "x"}', b"[" * 5000]
)
def test_a_seal_that_cannot_be_read_is_damage(copy, line):
    content = bytearray(copy.read_bytes())
    content[24 : 24 + len(line) + 1] = line + b"\n"
    copy.write_bytes(content)
    with pytest.raises(CacheDamagedError, match="seal that cannot be read"):
        EmbeddingStore.open(copy)


def test_a_forged_extent_does_not_reach_outside(copy):
    value = json.loads(copy.read_bytes().split(b"\n")[1])
    for forged in ([[-8, 100]], [[4096, 10**15]], [[0, 10**9]]):
        text = json.dumps({**value, "extents": forged}).encode() + b"\n"
        content = bytearray(copy.read_bytes())
        content[24 : 24 + len(text)] = text
        copy.write_bytes(content)
        with pytest.raises(CacheDamagedError):
            EmbeddingStore.open(copy)


def test_the_seal_can_be_checked_by_itself(sound):
    with sound.open("rb") as file:
        found = check_seal(file)
    assert found.user_block == 4096
    assert found.size == sound.stat().st_size


def test_the_user_block_grows_with_the_number_of_layers(tmp_path):
    arrays = {f"net/block{number:03d}": np.eye(2) for number in range(300)}
    path = tmp_path / "many.h5"
    EmbeddingStore.from_arrays(arrays, ["a", "b"], path=path).close()
    with EmbeddingStore.open(path) as store:
        assert store.matrix()[0].shape == (2, 600)
    with h5py.File(path) as file:
        assert file.userblock_size == user_block_size(300) == 16384


def test_sealing_again_what_was_changed_on_purpose_makes_it_sound(copy):
    extents = [tuple(extent) for extent in extents_of(copy)]
    with h5py.File(copy, "r+") as file:
        file["targets/label"].attrs["kind"] = "multilabel"
    seal(copy, extents, 4096)
    with EmbeddingStore.open(copy) as store:
        assert store.targets["label"].kind == "multilabel"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("size", "Infinity"),
        ("format_version", "1e999"),
        ("user_block", "NaN"),
        ("digest", '"\\ud800"'),
        ("digest", "7"),
        ("extents", "[[0, Infinity]]"),
        ("extents", "[" * 100_000),
        ("size", "9" * 5000),
    ],
)
def test_hostile_json_in_the_seal_is_damage(copy, name, text):
    content = copy.read_bytes()
    value = json.loads(content.split(b"\n")[1])
    line = json.dumps(value | {name: "@"}).replace('"@"', text).encode()
    copy.write_bytes(content.split(b"\n")[0] + b"\n" + line + b"\n" + content[4096:])
    with pytest.raises(CacheDamagedError, match="has a seal that cannot be read"):
        EmbeddingStore.open(copy)
