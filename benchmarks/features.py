"""Features: rows of several layers with classes, drawn, or read from a cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline import EmbeddingStore
from pipeline.fusion import resolve_slices

WIDTHS = (16, 24, 40, 80, 112, 192, 320, 1280)
"""Of the layers of EfficientNet-Lite0, 2,064 columns in all."""


@dataclass(frozen=True, eq=False)
class Features:
    """Rows to fit, and as many columns of other rows to measure on.

    Parameters
    ----------
    X, X_test : float32 arrays of shape (n_samples, n_features)
    codes, codes_test : int arrays of shape (n_samples,)
        Number of the class.
    layer_slices : dict of str to slice
        Bottom to top.
    source : str
    """

    X: np.ndarray
    codes: np.ndarray
    X_test: np.ndarray
    codes_test: np.ndarray
    layer_slices: dict[str, slice]
    source: str

    @cached_property
    def n_classes(self) -> int:
        """Classes of the rows to fit."""
        return int(self.codes.max()) + 1

    @cached_property
    def Y(self) -> np.ndarray:  # noqa: N802
        """One indicator for each class: float64 array of shape (n_samples, n_classes)."""
        return np.eye(self.n_classes)[self.codes]

    @cached_property
    def standardised(self) -> tuple[np.ndarray, np.ndarray]:
        """``X`` and ``X_test`` with every column of mean 0 and variance 1 in ``X``."""
        mean, spread = self.X.mean(axis=0, dtype=np.float64), self.X.std(axis=0, dtype=np.float64)
        spread[spread == 0] = 1
        return tuple(((X - mean) / spread).astype(X.dtype) for X in (self.X, self.X_test))

    def part(self, n_rows: int, n_layers: int | None = None) -> Features:
        """Give the first rows, of the lowest layers; the rows to measure on stay."""
        kept = dict(list(self.layer_slices.items())[:n_layers])
        width = max(span.stop for span in kept.values())
        rows = slice(0, n_rows)
        return Features(self.X[rows, :width], self.codes[rows], self.X_test[:, :width],
                        self.codes_test, kept, self.source)  # fmt: skip


def drawn(n_rows: int, n_test: int, widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> Features:
    """Draw features: noisy views of a space in which classes lie apart, clearer layer by layer.

    Columns differ in mean and spread and are correlated, as those of a network are.
    """
    rng = np.random.default_rng(seed)
    n, latent, n_classes = n_rows + n_test, 64, 10
    codes = rng.integers(0, n_classes, n)
    centres = rng.normal(size=(n_classes, latent))
    seen = (0.4 * centres[codes] + rng.normal(size=(n, latent))).astype(np.float32)
    parts = []
    for clarity, width in zip(np.linspace(0.2, 1, len(widths)), widths, strict=True):
        mix = rng.normal(size=(latent, width)) * clarity / np.sqrt(latent)
        own = seen @ mix.astype(np.float32)
        own += rng.standard_normal((n, width), np.float32)
        own *= rng.lognormal(sigma=0.5, size=width).astype(np.float32)
        parts.append(own + rng.normal(size=width).astype(np.float32))
    X = np.hstack(parts)
    stops = np.cumsum(widths).tolist()
    slices = {
        f"layer.{number}": slice(stop - width, stop)
        for number, (width, stop) in enumerate(zip(widths, stops, strict=True))
    }
    return Features(X[:n_rows], codes[:n_rows], X[n_rows:], codes[n_rows:], slices,
                    f"drawn, seed {seed}")  # fmt: skip


def cached(path: Path, n_rows: int, n_test: int) -> Features:
    """Read features of a cache that has a column ``label``; ``split`` says which are measured on.

    Without such a column the rows are shuffled.
    """
    with EmbeddingStore.open(path) as store:
        codes = np.unique(store.targets["label"].values, return_inverse=True)[1]
        order = np.random.default_rng(0).permutation(len(store))
        if "split" in store.targets:
            parts = np.asarray(store.targets["split"].values)
            train, test = (np.flatnonzero(parts == name) for name in ("train", "test"))
        else:
            train, test = order[:n_rows], order[n_rows:]
        train, test = np.sort(train[:n_rows]), np.sort(test[:n_test])
        _, slices = store.matrix(None, slice(0, 0))
        spans = resolve_slices(slices, sum(store.layers.values()), whole=True)
        return Features(
            store.matrix(None, train)[0], codes[train], store.matrix(None, test)[0], codes[test],
            {name: slice(*span) for name, span in spans.items()}, path.name,
        )  # fmt: skip
