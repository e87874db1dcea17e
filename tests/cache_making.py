"""A small world for the cache: inputs with contents, and vectors that follow from them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pipeline.cache import INPUT, CacheLock, Column, EmbeddingStore, PartFolder, merge
from pipeline.digest import digest_bytes
from pipeline.spec import EmbeddingSpec, Preprocessing

LAYERS = {"net/low": 5, "net/high": 3}
SPECS = {"net": EmbeddingSpec("net", "ab" * 16, Preprocessing((8, 8)), "mean", "float32")}
VIT = {"timm/vit": EmbeddingSpec("timm/vit", "cd" * 16, Preprocessing(), "cls", "float32")}


def ids_of(n: int) -> list[str]:
    return [f"class/photo {row:05d}.jpg" for row in range(n)]


def vector(content: str, layer: str, width: int) -> np.ndarray:
    """What a network would give: it depends on the content and the layer alone."""
    seed = int.from_bytes(digest_bytes(f"{content}|{layer}".encode())[:8], "little")
    return np.random.default_rng(seed).normal(size=width).astype(np.float16)


def vectors(contents: list[str], layer: str, width: int) -> np.ndarray:
    rows = [vector(content, layer, width) for content in contents]
    return np.array(rows, dtype=np.float16).reshape(len(rows), width)


def inputs_of(contents: list[str]) -> np.ndarray:
    inputs = np.zeros(len(contents), INPUT)
    for row, content in enumerate(contents):
        inputs["digest"][row] = np.frombuffer(digest_bytes(content.encode()), np.uint8)
        inputs["size"][row], inputs["mtime_ns"][row] = len(content), row
    return inputs


def write_batch(
    folder: PartFolder,
    first_row: int,
    files: dict[str, str],
    layers: dict[str, int] = LAYERS,
    specs: dict[str, EmbeddingSpec] = SPECS,
    **more: object,
):
    contents = list(files.values())
    arrays = {layer: vectors(contents, layer, width) for layer, width in layers.items()}
    return folder.write(
        arrays,
        first_row=first_row,
        ids=list(files),
        inputs=inputs_of(contents),
        specs=specs,
        **more,
    )


def embed(path: Path, files: dict[str, str], batch: int = 4, targets=None) -> None:
    """A run as a caller does it: lock, find parts, embed what is missing, merge."""
    with CacheLock(path):
        folder = PartFolder(path)
        parts = folder.read(SPECS.values()).sound
        done = {part.first_row for part in parts}
        for start in range(0, len(files), batch):
            if start not in done:
                chunk = dict(list(files.items())[start : start + batch])
                parts.append(write_batch(folder, start, chunk))
        parts.sort(key=lambda part: part.first_row)
        merge(path, ids=list(files), layers=LAYERS, specs=SPECS, parts=parts, targets=targets)


def assert_holds(path: Path, files: dict[str, str], layers: dict[str, int] = LAYERS) -> None:
    with EmbeddingStore.open(path) as store:
        assert list(store.ids) == list(files)
        assert store.layers == layers
        for layer, width in layers.items():
            np.testing.assert_array_equal(
                store.values(layer), vectors(list(files.values()), layer, width)
            )


def labels_of(n: int) -> dict[str, Column]:
    return {"label": Column.of("class", ["cat", None, "dog"] * n).take(range(n))}


def in_child(work) -> int:
    """Run ``work`` in a forked process, and give its exit code."""
    child = os.fork()
    if not child:
        code = 70
        try:
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
