"""Make the golden files: caches of every format version, which must open for ever.

Run from the repository's root: ``python data/golden/make.py``. A golden file is never made
again once its format is released: a new format gets a new file. The vectors follow from a
formula that ``tests/test_golden_files.py`` computes by itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.cache import INPUT, Column, Contents, Failure, write_cache
from pipeline.digest import digest_bytes
from pipeline.spec import EmbeddingSpec, Preprocessing

FOLDER = Path(__file__).parent
IDS = (
    "bird/amsel.jpg",
    "bird/b 2.png",
    "cat/zoë.jpg",
    "cat/猫.jpg",
    "dog/a/b.jpg",
    "dog/c.jpg",
    "owl/ü,1.jpg",
    "owl/😀.png",
    "x.jpg",
    "y.jpg",
)


def cache_v1() -> None:
    """Write two backbones of three layers, ten rows, three columns and a failed input."""
    layers = {"tiny/blocks.0": 4, "tiny/features": 6, "timm/test_vit/cls": 3}
    specs = {
        "tiny": EmbeddingSpec("tiny", "aa" * 16, Preprocessing((32, 32)), "mean", "float32"),
        "timm/test_vit": EmbeddingSpec(
            "timm/test_vit",
            "bb" * 16,
            Preprocessing((64, 48), resize="squash", interpolation="bilinear"),
            "cls",
            "bfloat16",
            store_dtype="float32",
        ),
    }
    inputs = np.zeros(len(IDS), INPUT)
    for row, id in enumerate(IDS):
        inputs["digest"][row] = np.frombuffer(digest_bytes(id.encode()), np.uint8)
        inputs["size"][row], inputs["mtime_ns"][row] = 1000 + row, 10**18 + row
    contents = Contents(
        ids=IDS,
        layers=layers,
        specs=specs,
        inputs=inputs,
        targets={
            "label": Column.of("class", ["bird"] * 2 + ["cat"] * 2 + ["dog"] * 2 + [None] * 4),
            "größe/cm": Column.of("number", [1.5, None, -2, 0, 1e9, 3, 4, 5, 6, None]),
            "camera": Column.of("", ["A|1", "", "c d", *"efghijk"]),
        },
        failed=(Failure("dog/broken.jpg", "truncated image", digest_bytes(b"broken"), 7, 8),),
        created="2026-11-24T00:00:00+00:00",
        library_versions={"numpy": "2.4.6", "h5py": "3.16.0"},
        weights={"timm/test_vit": "random"},
    )

    def values(layer: str, window: slice) -> np.ndarray:
        rows = np.arange(len(IDS))[window, None]
        number = list(layers).index(layer)
        columns = np.arange(layers[layer])
        exact = np.sin(rows * 7 + columns * 3 + number)
        return exact.astype(specs[layer.rpartition("/")[0]].store_dtype)

    write_cache(FOLDER / "cache-v1.h5", contents, values)


if __name__ == "__main__":
    cache_v1()
