"""Parity: the ridge that heads.py times, against scikit-learn and against refits by hand."""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from features import Features
from findings import Sheet
from sklearn.linear_model import Ridge, RidgeClassifierCV, RidgeCV

from pipeline.heads.layer_ridge import LayerRidgeRegressor
from pipeline.heads.linear_map import LinearMap
from pipeline.heads.moments import Moments
from pipeline.heads.ridge_rows import RidgeRows

POWERS = np.logspace(-5, 2, 20)


def strengths(n_rows: int) -> np.ndarray:
    """Give the strengths to compare, on standardised columns."""
    return n_rows * POWERS


def plain_ridge(X: np.ndarray, data: Features) -> RidgeRows:
    """Take moments in one pass, for ridge on indicators of classes."""
    weight = np.ones(len(X))
    moments = Moments.starting_at(X.mean(axis=0, dtype=np.float64), data.Y.mean(axis=0))
    return RidgeRows(X, data.Y, weight, (), moments.add(X, data.Y, weight))


def parity(data: Features, given: argparse.Namespace) -> Sheet:
    """Compare with scikit-learn and with refits, in float64 on standardised columns."""
    data = data.part(2000, 5)
    Z = data.standardised[0].astype(np.float64)
    n, d = Z.shape
    sheet = Sheet(f"parity, {n:,} rows, {d:,} columns, float64")
    alphas = strengths(n)
    rows = plain_ridge(Z, data)
    spectrum = rows.spectrum(LinearMap(slice(None), np.ones(d)))
    turned = spectrum.coordinates(Z)
    left_out = np.stack(list(spectrum.left_out(turned, data.Y, rows.weight, alphas, ())), axis=2)
    errors = (left_out - data.Y[:, :, None]) ** 2
    numbers = RidgeCV(alphas, store_cv_results=True).fit(Z, data.Y)
    away = np.abs(errors - numbers.cv_results_) / np.maximum(numbers.cv_results_, 1e-12)
    sheet.judge("LOO squared errors / RidgeCV, relative difference",
                [float(np.linalg.norm(errors - numbers.cv_results_)
                       / np.linalg.norm(numbers.cv_results_))], 1e-5, at_most=True)  # fmt: skip
    sheet.add(what="largest relative difference of one error", value=float(away.max()))
    own = LayerRidgeRegressor(penalties="uniform", scaling="trace", alphas=alphas).fit(Z, data.Y)
    sheet.judge("mean LOO squared error / RidgeCV, relative difference",
                [abs(own.loo_mse_ / -numbers.best_score_ - 1)], 1e-5, at_most=True)  # fmt: skip
    classes = RidgeClassifierCV(alphas).fit(Z, data.codes)
    chosen = float(alphas[errors.mean(axis=(0, 1)).argmin()])
    sheet.add(what="strength of least squared error", ours=chosen, regressor=own.alpha_,
              RidgeCV=numbers.alpha_, RidgeClassifierCV=classes.alpha_)  # fmt: skip
    sheet.judge("choices of strength that are the same", [float(np.mean(
        [np.isclose(chosen, one) for one in (own.alpha_, numbers.alpha_, classes.alpha_)]))],
        1)  # fmt: skip
    refits = []
    for row, place in itertools.product((0, n // 2, n - 1), (0, len(alphas) // 2)):
        rest = np.delete(np.arange(n), row)
        again = Ridge(alphas[place], solver="cholesky").fit(Z[rest], data.Y[rest])
        expected = again.predict(Z[[row]])[0]
        refits.append(np.abs(left_out[row, :, place] / expected - 1).max())
    sheet.judge("6 rows left out / refits without them, relative difference", refits, 1e-5,
                at_most=True)  # fmt: skip
    return sheet
