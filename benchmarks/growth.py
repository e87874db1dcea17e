"""Growth: how the parts of a ridge fit grow with rows and columns, against what they multiply."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from features import Features
from findings import Sheet, timed
from scipy.linalg import eigh

from pipeline.heads.layer_ridge import LayerRidgeClassifier
from pipeline.heads.linear_map import LinearMap
from pipeline.heads.moments import Moments
from pipeline.heads.ridge_rows import RidgeRows
from pipeline.heads.spectrum import Spectrum

MODEL = {"moments": "2 n d^2", "eigh": "9 min(n, d)^3", "rotation": "2 n d min(n, d)"}
"""Floating-point operations, as they are usually counted."""


@dataclass(frozen=True)
class Parts:
    """Seconds of the parts of one fit.

    Parameters
    ----------
    n, d : int
        Rows and columns.
    moments, eigh, rotation : float
        One pass; decomposition in the space of the columns, or of the rows where they are fewer;
        turning all rows into the eigenvectors.
    """

    n: int
    d: int
    moments: float
    eigh: float
    rotation: float

    def work(self, part: str) -> float:
        """Operations of a part by the model."""
        n, d = self.n, self.d
        side = min(n, d)
        return {"moments": 2.0 * n * d**2, "eigh": 9.0 * side**3, "rotation": 2.0 * n * d * side}[
            part
        ]


def measured(n: int, d: int) -> Parts:
    """Time the parts on drawn rows: once, or the best of three where that is short."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), np.float32)
    Y = np.eye(10)[rng.integers(0, 10, n)]
    weight = np.ones(n)

    def moments() -> Moments:
        return Moments.starting_at(X.mean(axis=0, dtype=np.float64), Y.mean(axis=0)).add(X, Y)

    own, passing = _best(moments)
    wide = n < d
    rows = RidgeRows(X.astype(np.float64) if wide else X, Y, weight, (), None if wide else own)
    plain = LinearMap(slice(None), np.ones(d))
    features = rows.features(plain) if wide else None
    gram = features @ features.T if features is not None else rows.gram(plain)[0]
    (values, vectors), decomposing = _best(lambda: eigh(gram, driver="evd"))
    basis = vectors if features is None else features.T @ vectors  # of any length
    spectrum = Spectrum(slice(None), values, basis, basis.T @ own.cross, rows.x_mean,
                        rows.y_mean, rows.total)  # fmt: skip
    _, turning = _best(lambda: spectrum.coordinates(rows.X))
    return Parts(n, d, passing, decomposing, turning)


def _best(call: Callable[[], Any]) -> tuple[Any, float]:
    found, seconds = timed(call)
    again = [timed(call)[1] for _ in range(2)] if seconds < 1 else []
    return found, min([seconds, *again])


def growth(data: Features, given: argparse.Namespace) -> Sheet:
    """Rows at one width, columns at one length; then the whole fit over the rows."""
    sheet = Sheet("growth, against " + ", ".join(f"{part} {work}" for part, work in MODEL.items()))
    over_rows = [measured(n, given.fixed_columns) for n in given.grow_rows]
    over_columns = [measured(given.fixed_rows, d) for d in given.grow_columns]
    for one in (*over_rows, *over_columns):
        rates = {f"{part}_gflops": one.work(part) / getattr(one, part) / 1e9 for part in MODEL}
        seconds = {part: getattr(one, part) for part in MODEL}
        sheet.add(rows=one.n, columns=one.d, space="rows" if one.n < one.d else "columns",
                  **seconds, **rates)  # fmt: skip
    narrow = [one for one in over_columns if one.d <= one.n]
    for what, ran, size, expected in (
        ("rows", over_rows, [one.n for one in over_rows], {"moments": 1, "rotation": 1}),
        ("columns", over_columns, [one.d for one in over_columns], {"moments": 2}),
        ("columns, up to as many as rows", narrow, [one.d for one in narrow],
         {"eigh": 3, "rotation": 2}),
    ):  # fmt: skip
        for part, power in expected.items():
            found = np.polyfit(np.log(size), np.log([getattr(one, part) for one in ran]), 1)[0]
            sheet.add(part=part, over=what, exponent=float(found), model=power)
    for n in given.grow_rows:
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, given.fixed_columns), np.float32)
        codes = rng.integers(0, 10, n)
        X[:, :10] += np.eye(10, dtype=np.float32)[codes]
        own = LayerRidgeClassifier(penalties="uniform")
        _, seconds = timed(lambda own=own, X=X, codes=codes: own.fit(X, codes))
        sheet.add(rows=n, columns=given.fixed_columns, whole_fit_seconds=seconds)
    return sheet
