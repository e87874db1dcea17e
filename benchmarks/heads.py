"""Speed of the layer-aware ridge and its search over fusions, against scikit-learn and himalaya.

    python benchmarks/heads.py                      everything, under ten minutes on two cores
    python benchmarks/heads.py --quick              everything small, about a minute
    python benchmarks/heads.py --cache fashion.h5   rows of a cache instead of drawn ones

All contestants of a comparison are fitted on the same rows in one process and measured on the
same held-out rows. What other processes take of the cores meanwhile is told: with much of it,
seconds mean little. himalaya (``pip install himalaya``) may be absent: that is
said. This script downloads nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from features import WIDTHS, Features, cached, drawn
from findings import Sheet, timed
from growth import growth
from measuring import RESULTS, cpu_of_others, machine, write_results
from parity import POWERS, parity, plain_ridge, strengths
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from pipeline.heads import search_fusions
from pipeline.heads.judging import ClassJudge
from pipeline.heads.layer_ridge import LayerRidgeRegressor
from pipeline.heads.linear_map import LinearMap
from pipeline.heads.solving import Solution, solved

EQUAL = 0.002
"""Of R squared: himalaya has reached our quality when it is this near, or better."""


def search(data: Features, given: argparse.Namespace) -> Sheet:
    """Compare all fusions with one fit of the widest with exact leave-one-out."""
    n, d = data.X.shape
    sheet = Sheet(f"search over fusions, {n:,} rows, {d:,} columns, {len(POWERS)} strengths, LOO")
    Z, Z_test = data.standardised
    y, y_test = data.codes, data.codes_test
    ours: list[float] = []
    for _ in range(given.repeats):
        (winner, table), seconds = timed(lambda: search_fusions(data.X, y, data.layer_slices))
        ours.append(seconds)
    other = RidgeClassifierCV(alphas=strengths(n))
    _, theirs = timed(lambda: other.fit(Z, y))
    proba = winner.predict_proba(data.X_test)
    sheet.add(
        who="search_fusions", seconds=float(np.median(ours)), fusions=len(table),
        chosen=winner.fusion_, accuracy=accuracy_score(y_test, winner.predict(data.X_test)),
        log_loss=log_loss(y_test, proba),
    )  # fmt: skip
    for row in table:
        sheet.add(fusion=row["fusion"], layers=len(row["layers"]), by=row["by"],
                  accuracy=row["accuracy"], log_loss=row["log_loss"],
                  seconds=row["seconds"])  # fmt: skip
    sheet.add(who="RidgeClassifierCV, all columns, standardised", seconds=theirs, fusions=1,
              accuracy=accuracy_score(y_test, other.predict(Z_test)))  # fmt: skip
    sheet.judge("RidgeClassifierCV / search", [theirs / one for one in ours], 1, unit="x")
    sheet.judge("the same, goal", [theirs / one for one in ours], 2, unit="x")
    found, alone = timed(lambda: _same_ridge(Z, data, other.alpha_))
    sheet.add(who="the same ridge from moments, this strength alone", seconds=alone)
    away = abs(_squares(found, data.Y).mean() * 4 / -other.best_score_ - 1)  # -1 and 1, not 0 and 1
    sheet.judge("LOO squared error at its strength, relative difference", [away], 1e-5,
                at_most=True)  # fmt: skip
    return sheet


def _same_ridge(Z: np.ndarray, data: Features, alpha: float) -> Solution:
    rows = plain_ridge(Z, data)
    judge = ClassJudge(data.codes, rows.weight)
    return solved(rows, LinearMap(slice(None), np.ones(Z.shape[1])), judge, [alpha])


def _squares(found: Solution, Y: np.ndarray) -> np.ndarray:
    return (found.scores - Y) ** 2


def subsets(data: Features, given: argparse.Namespace) -> Sheet:
    """Compare ten nested subsets, all strengths, with cross-validation on the same grid.

    Cross-validation fits every strength anew, at the same cost. Where fewer strengths are
    measured than there are, its seconds are multiplied, and that is said.
    """
    data = data.part(given.subset_rows)
    n = len(data.X)
    stops, alphas = _stops(data), strengths(n)
    sheet = Sheet(
        f"{len(stops)} nested subsets of {', '.join(map(str, stops))} columns, {n:,} rows, "
        f"{len(alphas)} strengths: LOO from one pass, and GridSearchCV of 5 folds"
    )
    Z, Z_test = data.standardised
    tried = alphas[np.linspace(len(alphas) / 2, len(alphas) - 1, given.grid_strengths, dtype=int)]
    if given.grid_strengths >= len(alphas):
        tried = alphas
    times = len(alphas) / len(tried)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    grid = GridSearchCV(RidgeClassifier(), {"alpha": tried}, cv=folds)
    ours: list[float] = []
    for _ in range(3):
        found, seconds = timed(lambda: _from_one_pass(data, stops, alphas))
        ours.append(seconds)
    total, differences = 0.0, []
    for stop, own in zip(stops, found, strict=True):
        _, seconds = timed(lambda stop=stop: grid.fit(Z[:, :stop], data.codes))
        total += grid.refit_time_ + times * (seconds - grid.refit_time_)
        theirs = grid.best_estimator_.decision_function(Z_test[:, :stop])
        same = 2 * _scores(own, data.X_test[:, :stop], grid.best_params_["alpha"]) - 1
        differences.append(np.linalg.norm(same - theirs) / np.linalg.norm(theirs))
        reached = [_scores(own, data.X_test[:, :stop], own.alpha), theirs]
        accuracy, grid_accuracy = (
            accuracy_score(data.codes_test, one.argmax(axis=1)) for one in reached
        )
        sheet.add(columns=stop, accuracy=accuracy, strength=own.alpha, grid_seconds=seconds,
                  grid_accuracy=grid_accuracy if times == 1 else None,  # else not its choice
                  difference=differences[-1])  # fmt: skip
    said = f"{len(tried)} of {len(alphas)} strengths measured"
    if times > 1:
        said += f", times {times:g}: extrapolated"
    sheet.add(who="LOO from one pass, all subsets", seconds=float(np.median(ours)))
    sheet.add(who="GridSearchCV, all subsets", seconds=total, measured=said)
    sheet.judge(f"GridSearchCV ({said}) / ours", [total / one for one in ours], 30, unit="x")
    sheet.judge("held-out scores at its strength, relative difference", differences, 1e-5,
                at_most=True)  # fmt: skip
    return sheet


def _scores(found: Solution, X: np.ndarray, alpha: float) -> np.ndarray:
    coef = found.spectrum.coef(alpha)
    return X @ coef + found.spectrum.intercept(coef)


def _stops(data: Features) -> list[int]:
    """Last column of each of ten nested subsets: layer by layer, the widest in three steps."""
    *lower, (start, width) = [(span.start, span.stop) for span in data.layer_slices.values()]
    ends = [stop for _, stop in lower]
    left = max(10 - len(ends), 1)
    return [*ends, *np.linspace(start, width, left + 1, dtype=int)[1:].tolist()]


def _from_one_pass(data: Features, stops: list[int], alphas: np.ndarray) -> list[Solution]:
    rows = plain_ridge(data.X, data)
    judge = ClassJudge(data.codes, rows.weight)
    factors = 1 / np.sqrt(np.maximum(rows.x_variance, 1e-12))
    return [
        solved(rows, LinearMap(slice(0, stop), factors[:stop]), judge, alphas) for stop in stops
    ]


def himalaya(data: Features, given: argparse.Namespace) -> Sheet:
    """Find a penalty for each layer by evidence, against random search with cross-validation."""
    data = data.part(given.group_rows, given.group_layers)
    n, d = data.X.shape
    layers = list(data.layer_slices.values())
    sheet = Sheet(f"a penalty for each of {len(layers)} layers, {n:,} rows, {d:,} columns, R2 of "
                  f"{data.n_classes} indicators")  # fmt: skip
    Z, Z_test = data.standardised
    Y = data.Y.astype(np.float32)
    Y_test = np.eye(data.n_classes)[data.codes_test]

    def ours() -> Any:
        own = LayerRidgeRegressor(data.layer_slices, penalties="evidence", scaling="standard")
        return own.fit(Z, Y)

    fits = [timed(ours) for _ in range(3)]
    took = float(np.median([seconds for _, seconds in fits]))
    quality = _quality(fits[-1][0].predict(Z_test), Y_test, data.codes_test)
    sheet.add(who="LayerRidgeRegressor, evidence", seconds=took, **quality)
    try:
        from himalaya.ridge import GroupRidgeCV
    except ImportError:
        sheet.judge_absent("GroupRidgeCV / ours", "himalaya is not installed")
        return sheet
    groups = np.repeat(np.arange(len(layers)), [span.stop - span.start for span in layers])
    for n_iter in given.group_iterations:
        other = GroupRidgeCV(
            groups=groups, solver="random_search", cv=5, fit_intercept=True, random_state=0,
            solver_params={"n_iter": n_iter, "alphas": strengths(n), "progress_bar": False,
                           "warn": False},
        )  # fmt: skip
        _, theirs = timed(lambda other=other: other.fit(Z, Y))
        reached = _quality(other.predict(Z_test), Y_test, data.codes_test)
        sheet.add(who=f"GroupRidgeCV, {n_iter} candidates, 5 folds", seconds=theirs, **reached)
        equal = bool(reached["r2"] >= quality["r2"] - EQUAL)
        if equal:
            break
    what = f"GroupRidgeCV, {n_iter} candidates / ours, "
    what += "R2 equal" if equal else "though its R2 stayed lower"
    sheet.judge(what, [theirs / seconds for _, seconds in fits], 10, unit="x")
    return sheet


def _quality(scores: Any, Y: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    return {"r2": r2_score(Y, scores), "accuracy": accuracy_score(codes, scores.argmax(axis=1))}


SECTIONS = {one.__name__: one for one in (parity, search, subsets, growth, himalaya)}
QUICK = {"rows": 2000, "test_rows": 1000, "subset_rows": 2000, "group_rows": 500,
         "grid_strengths": 5, "group_layers": 5, "group_iterations": [2, 4], "repeats": 1,
         "grow_rows": [500, 1000, 2000], "grow_columns": [100, 200, 400, 1000],
         "fixed_rows": 600, "fixed_columns": 100}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cache", type=Path, help="with a column called label")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--subset-rows", type=int, default=20_000)
    parser.add_argument("--grid-strengths", type=int, default=2,
                        help="of 20 that GridSearchCV is measured on")  # fmt: skip
    parser.add_argument("--group-rows", type=int, default=2000)
    parser.add_argument("--group-layers", type=int, default=7)
    parser.add_argument("--group-iterations", type=int, nargs="+", default=[20])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=RESULTS / "heads.json")
    parser.set_defaults(grow_rows=[1000, 3000, 10_000, 30_000, 100_000], fixed_rows=5000,
                        grow_columns=[500, 1000, 2000, 4000, 8000], fixed_columns=500)  # fmt: skip
    given = parser.parse_args()
    if given.quick:
        vars(given).update(QUICK)
    sizes = (max(given.rows, given.subset_rows), given.test_rows)
    widths = tuple(width // 4 for width in WIDTHS) if given.quick else WIDTHS
    data = cached(given.cache, *sizes) if given.cache else drawn(*sizes, widths)
    print(data.source, *data.X.shape, machine("cpu")["processor"])
    found: dict[str, Any] = {"features": data.source, "sections": {}}
    for name in given.only:
        print(name, file=sys.stderr, flush=True)
        before = cpu_of_others()
        sheet, seconds = timed(lambda name=name: SECTIONS[name](data.part(given.rows), given))
        others = None if before is None else round((cpu_of_others() - before) / seconds, 2)
        sheet.show()
        print(f"  {seconds:.1f} s; cores that other processes kept busy meanwhile: {others}")
        own = {"seconds": round(seconds, 1), "cores_of_others": others}
        found["sections"][name] = sheet.to_json() | own
        write_results(given.out, "heads", found)


if __name__ == "__main__":
    main()
