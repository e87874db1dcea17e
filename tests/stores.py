"""Stores of vectors with known answers, and models of them."""

import numpy as np

from pipeline.cache import EmbeddingStore
from pipeline.config import TrainOptions
from pipeline.training import train

LAYERS = {"net/low": 6, "net/high": 5}


def vectors(n: int = 60, seed: int = 0, classes: int = 3) -> tuple[dict, np.ndarray]:
    """Two layers, the upper one of which knows the class; and the class numbers."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    low = rng.normal(size=(n, 6))
    high = rng.normal(size=(n, 5)) + 3 * np.eye(5)[codes]
    return {"net/low": low.astype(np.float32), "net/high": high.astype(np.float32)}, codes


def names(n: int) -> list[str]:
    return [f"{row:03}.jpg" for row in range(n)]


def store_of(n: int = 60, seed: int = 0, **targets) -> EmbeddingStore:
    layers, codes = vectors(n, seed)
    given = targets or {"label": np.array(["elk", "fox", "owl"])[codes]}
    return EmbeddingStore.from_arrays(layers, names(n), given)


def model_of(store: EmbeddingStore | None = None, **options):
    return train(store or store_of(), TrainOptions(**{"head": "ridge", **options}))
