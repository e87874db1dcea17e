"""Noise: what layers of pure noise cost when each layer has a penalty, and when all have one."""

from __future__ import annotations

import numpy as np
from findings import Sheet

from pipeline import EmbeddingStore
from pipeline.heads.layer_ridge import LayerRidgeClassifier

LAYERS, WIDTH = 8, 256
SIZES = {300: 5, 6000: 1}
"""Rows to fit on, and draws of them to average over."""


def noise(store: EmbeddingStore) -> Sheet:
    """Fit all layers, with and without layers of noise, with both kinds of penalties."""
    sheet = Sheet(f"{LAYERS} more layers of noise, {WIDTH} columns each")
    parts = np.asarray(store.targets["split"].values)
    y = np.asarray(store.targets["label"].values)
    train, test = (np.flatnonzero(parts == part) for part in ("train", "test"))
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((len(y), LAYERS * WIDTH), np.float32)
    plain, slices = store.matrix(None, slice(None))
    width = plain.shape[1]
    noisy_slices = {**slices, **{
        f"noise.{number}": slice(width + number * WIDTH, width + (number + 1) * WIDTH)
        for number in range(LAYERS)
    }}  # fmt: skip
    noisy = np.hstack([plain, drawn])
    for size, draws in SIZES.items():
        picks = [rng.permutation(train)[:size] for _ in range(draws)]
        lost = {}
        for penalties in ("evidence", "uniform"):
            means = []
            for X, layers in ((plain, slices), (noisy, noisy_slices)):
                heads = [
                    LayerRidgeClassifier(layers, penalties=penalties).fit(X[rows], y[rows])
                    for rows in picks
                ]
                means.append(float(np.mean([head.score(X[test], y[test]) for head in heads])))
                share = sum(
                    value for name, value in heads[-1].layer_importance_.items() if "noise" in name
                )
                sheet.add(rows=size, draws=draws, penalties=penalties, layers=len(layers),
                          accuracy=means[-1], share_of_noise=share)  # fmt: skip
            lost[penalties] = means[0] - means[1]
        sheet.judge(f"accuracy lost to noise, evidence, {size:,} rows", [lost["evidence"]], 0.01,
                    at_most=True)  # fmt: skip
        sheet.judge(f"accuracy lost to noise, uniform, {size:,} rows", [lost["uniform"]])
        sheet.judge(f"uniform loses more than evidence by, {size:,} rows",
                    [lost["uniform"] - lost["evidence"]], 0.005)  # fmt: skip
    return sheet
