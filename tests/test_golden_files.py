"""Files of released formats open for ever, with ours and with any HDF5 reader."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.cache import EmbeddingStore
from pipeline.digest import digest_bytes

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "cache-v1.h5"
WIDTHS = {"tiny/blocks.0": 4, "tiny/features": 6, "timm/test_vit/cls": 3}
IDS = [
    *("bird/amsel.jpg", "bird/b 2.png", "cat/zoë.jpg", "cat/猫.jpg", "dog/a/b.jpg"),
    *("dog/c.jpg", "owl/ü,1.jpg", "owl/😀.png", "x.jpg", "y.jpg"),
]


def expected(layer: str) -> np.ndarray:
    number = list(WIDTHS).index(layer)
    values = [
        [np.sin(row * 7 + column * 3 + number) for column in range(WIDTHS[layer])]
        for row in range(10)
    ]
    return np.array(values).astype(np.float32 if layer.startswith("timm") else np.float16)


def test_the_golden_cache_reads_with_h5py_alone():
    with h5py.File(GOLDEN) as file:
        assert file.attrs["format_version"] == 1
        assert json.loads(file.attrs["layers"]) == list(WIDTHS)
        assert set(json.loads(file.attrs["specs"])) == {"tiny", "timm/test_vit"}
        assert file["ids"].asstr()[()].tolist() == IDS
        for layer in WIDTHS:
            np.testing.assert_array_equal(file["layers"][layer][()], expected(layer), strict=True)
        assert [row.tobytes() for row in file["inputs"]["digest"]] == [
            digest_bytes(id.encode()) for id in IDS
        ]
        assert file["targets/label"].asstr()[4:7].tolist() == ["dog", "dog", ""]
        assert file["targets/gr%C3%B6%C3%9Fe%2Fcm"].attrs["kind"] == "number"
        assert file["failed"][0]["reason"].decode() == "truncated image"


@pytest.mark.parametrize("layer", WIDTHS)
def test_the_golden_cache_gives_its_vectors(layer):
    with EmbeddingStore.open(GOLDEN) as store:
        X, slices = store.matrix()
        assert store.layers == WIDTHS
        np.testing.assert_array_equal(X[:, slices[layer]], expected(layer).astype(np.float32))


def test_the_golden_cache_gives_all_it_says_about_its_rows():
    with EmbeddingStore.open(GOLDEN) as store:
        assert list(store.ids) == IDS
        assert {name: spec.precision for name, spec in store.specs.items()} == {
            "tiny": "float32",
            "timm/test_vit": "bfloat16",
        }
        assert store.specs["timm/test_vit"].preprocess.image_size == (64, 48)
        assert list(store.targets) == ["label", "größe/cm", "camera"]
        assert store.targets["label"].kind == "class"
        assert store.targets["label"].values.tolist() == [
            *["bird"] * 2, *["cat"] * 2, *["dog"] * 2, *[""] * 4,
        ]  # fmt: skip
        np.testing.assert_array_equal(
            store.targets["größe/cm"].values, [1.5, np.nan, -2, 0, 1e9, 3, 4, 5, 6, np.nan]
        )
        assert store.targets["camera"].kind == ""
        assert store.targets["camera"].values[:3].tolist() == ["A|1", "", "c d"]
        assert [(f.id, f.size, f.mtime_ns) for f in store.failed] == [("dog/broken.jpg", 7, 8)]
        assert store.inputs["size"].tolist() == list(range(1000, 1010))
        assert store.created == "2026-11-24T00:00:00+00:00"
        assert store.weights == {"timm/test_vit": "random"}
        assert store.damaged() == {}
