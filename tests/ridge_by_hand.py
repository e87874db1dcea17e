"""Ridge by plain numpy, one fit at a time: what the fast ones are held against."""

import numpy as np


def line(X, Y, weight, penalties) -> tuple[np.ndarray, np.ndarray]:
    """Weights and free intercept: normal equations with a column of ones, penalty 0 on it."""
    ones = np.column_stack([X, np.ones(len(X))]).astype(np.float64)
    weighed = ones.T * weight
    both = np.diag(np.append(np.broadcast_to(penalties, X.shape[1]), 0.0))
    found = np.linalg.solve(weighed @ ones + both, weighed @ Y)
    return found[:-1], found[-1]


def left_out(X, Y, weight, penalties, families) -> np.ndarray:
    """Predictions of every family of rows by a fit without it."""
    found = np.full(Y.shape, np.nan)
    for family in families:
        kept = np.setdiff1d(np.arange(len(X)), family)
        coef, intercept = line(X[kept], Y[kept], weight[kept], penalties)
        found[family] = X[family] @ coef + intercept
    return found


def families_of(groups) -> list[np.ndarray]:
    """Rows of every group; a row without one is a family of its own."""
    names = [("alone", row) if group is None else group for row, group in enumerate(groups)]
    return [np.array([r for r, name in enumerate(names) if name == one]) for one in set(names)]


def alone(n: int) -> list[np.ndarray]:
    return list(np.arange(n)[:, None])


def scaled(X, spans, scaling, weight) -> np.ndarray:
    """What every column is multiplied by, layer by layer as the documentation words it."""
    mean = weight @ X / weight.sum()
    variance = weight @ (X - mean) ** 2 / weight.sum()
    parts = []
    for start, stop in spans:
        own = variance[start:stop]
        shared = {"trace": 1.0, "standard": own, "shrunk": (own + own.mean()) / 2}[scaling]
        parts.append(np.ones(stop - start) / np.sqrt(shared))
    total = X.shape[1] / len(spans)  # of every layer: 1 a column on average
    return np.concatenate(
        [
            part * np.sqrt(total / (part**2 @ variance[start:stop]))
            for part, (start, stop) in zip(parts, spans, strict=True)
        ]
    )


def indicators(y) -> np.ndarray:
    return (np.asarray(y)[:, None] == np.unique(y)).astype(np.float64)


def scores_of(proba, temperature) -> np.ndarray:
    """Turn probabilities back into scores: those of one-hot rows add up to 1."""
    logits = temperature * np.log(proba)
    return logits - logits.mean(axis=1, keepdims=True) + 1 / proba.shape[1]


def log_evidence(X, Y, spans, precision, noise) -> float:
    """Logarithm of the likelihood of centred outputs, but for a constant."""
    covariance = np.eye(len(X)) / noise
    for (start, stop), own in zip(spans, precision, strict=True):
        covariance += X[:, start:stop] @ X[:, start:stop].T / own
    _, volume = np.linalg.slogdet(covariance)
    return -0.5 * (Y.shape[1] * volume + np.sum(Y * np.linalg.solve(covariance, Y)))
