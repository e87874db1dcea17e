"""A file from a stranger with a forged seal reaches nothing outside itself."""

import json

import h5py
import numpy as np
import pytest
from cache_making import embed, ids_of

from pipeline.cache import EmbeddingStore
from pipeline.cache.seal import seal
from pipeline.errors import CacheDamagedError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "forged.h5"
    embed(path, {id: id for id in ids_of(4)})
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["ids"] = np.array(list("abcd"), dtype=h5py.string_dtype())
        secret["vectors"] = np.ones((4, 5), np.float16)
    (tmp_path / "secret.bin").write_bytes(b"secret" * 100)
    return path


def replace_by_external_link(file):
    del file["ids"]
    file["ids"] = h5py.ExternalLink("secret.h5", "/ids")


def replace_by_soft_link(file):
    del file["layers/net/low"]
    file["layers/net/low"] = h5py.SoftLink("/layers/net/high")


def replace_group_by_external_link(file):
    del file["layers"]
    file["layers"] = h5py.ExternalLink("secret.h5", "/")


def store_externally(file):
    del file["layers/net/low"]
    file.create_dataset(
        "layers/net/low", (4, 5), "<f2", external=[("secret.bin", 0, h5py.h5f.UNLIMITED)]
    )


def store_virtually(file):
    del file["layers/net/low"]
    layout = h5py.VirtualLayout((4, 5), "<f2")
    layout[:] = h5py.VirtualSource("secret.h5", "vectors", (4, 5))
    file.create_virtual_dataset("layers/net/low", layout)


def store_through_a_filter(file):
    del file["layers/net/low"]
    file.create_dataset("layers/net/low", data=np.ones((4, 5), "<f2"), compression="gzip")


def store_in_chunks(file):
    del file["layers/net/low"]
    file.create_dataset("layers/net/low", data=np.ones((4, 5), "<f2"), chunks=(1, 5))


def claim_a_huge_size(file):
    del file["layers/net/low"]
    file.create_dataset("layers/net/low", (10**9, 5), "<f2", fillvalue=None)


def change_a_type(file):
    del file["layers/net/low"]
    file.create_dataset("layers/net/low", data=np.ones((4, 5), "<f8"))


def change_a_shape(file):
    del file["checksums/net/low"]
    file.create_dataset("checksums/net/low", data=np.ones(2, "<u8"))


def add_a_dataset(file):
    file["layers/net/hidden"] = np.ones(3)


def add_a_place(file):
    file["program"] = np.ones(3)


def add_a_group(file):
    file.create_group("ids2/deep")


def make_a_cycle(file):
    file["layers/net/again"] = file["layers"]


def make_ids_numbers(file):
    del file["ids"]
    file["ids"] = np.arange(4)


def make_inputs_numbers(file):
    del file["inputs"]
    file["inputs"] = np.arange(4)


def drop_a_layer(file):
    del file["layers/net/low"]


def drop_specs(file):
    del file.attrs["specs"]


def garble_specs(file):
    file.attrs["specs"] = '{"net": {}}'


def list_specs(file):
    file.attrs["specs"] = "[]"


def store_objects(file):
    specs = json.loads(file.attrs["specs"])
    specs["net"]["store_dtype"] = "O"
    file.attrs["specs"] = json.dumps(specs)


def garble_layers(file):
    file.attrs["layers"] = "[[1]]"


@pytest.mark.parametrize(
    ("forge", "sentence"),
    [
        (replace_by_external_link, "ids is a link to elsewhere"),
        (replace_by_soft_link, "layers/net/low is a link to elsewhere"),
        (replace_group_by_external_link, "layers is a link to elsewhere"),
        (store_externally, "stored outside the file"),
        (store_virtually, "stored outside the file, virtually"),
        (store_through_a_filter, "through a filter"),
        (store_in_chunks, "stored in chunks"),
        (claim_a_huge_size, "claims to be larger than the file"),
        (change_a_type, "is float64 of shape"),
        (change_a_shape, r"of shape \(2,\), not uint64 of \(1,\)"),
        (add_a_dataset, "things that we do not write: layers/net/hidden"),
        (add_a_place, "program is nothing that we write"),
        (add_a_group, "ids2 is nothing that we write"),
        (make_a_cycle, "more groups or deeper ones"),
        (make_ids_numbers, "not text"),
        (make_inputs_numbers, "/inputs is int64"),
        (drop_a_layer, "not laid out as a cache of ours"),
        (drop_specs, "not laid out as a cache of ours"),
        (garble_specs, "missing or unknown fields|not a spec"),
        (garble_layers, "not laid out as a cache of ours"),
        (list_specs, "not laid out as a cache of ours"),
        (store_objects, "store_dtype is 'O', but must be one of float16, float32"),
    ],
)
def test_a_forged_file_is_refused(path, forge, sentence):
    with h5py.File(path, "r+") as file:
        extents = [(d.id.get_offset(), d.nbytes) for d in file["layers/net"].values()]
        forge(file)
    seal(path, extents, 4096)
    with pytest.raises(CacheDamagedError, match=sentence):
        EmbeddingStore.open(path)


def test_texts_that_share_their_bytes_are_refused(path):
    """Four ids of 10 KB in a file of 30: a million of them would ask for any memory."""
    with h5py.File(path, "r+") as file:
        extents = [(d.id.get_offset(), d.nbytes) for d in file["layers/net"].values()]
        file["ids"][0] = "x" * 10_000
        place = file["ids"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place : place + 64] = content[place : place + 16] * 4
    path.write_bytes(content)
    seal(path, extents, 4096)
    assert len(content) < 40_000
    with pytest.raises(CacheDamagedError, match="ids claims to hold more text than the file"):
        EmbeddingStore.open(path)


def test_layers_that_overlap_are_refused(path):
    """A file of a thousand layers that lie in one place would ask for any memory."""
    seal(path, [(5000, 100), (5000, 100)], 4096)
    with pytest.raises(CacheDamagedError, match="has a seal that cannot be read"):
        EmbeddingStore.open(path)


def test_layers_that_the_seal_does_not_know_are_refused(path):
    seal(path, [], 4096)
    with pytest.raises(CacheDamagedError, match="layers where its seal knows none"):
        EmbeddingStore.open(path)
