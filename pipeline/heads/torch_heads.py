"""Small torch heads: a linear layer, or one hidden layer, with early stopping.

Their weights are kept as numpy arrays, so that a fitted head pickles, saves and predicts
without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from pipeline.heads.inner import classes_of, inner_folds
from pipeline.heads.temperature import softmax
from pipeline.optimization import Group, optimize

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["TorchClassifier", "TorchRegressor"]

_LEAST_STEPS = 16
"""In an epoch."""


class _TorchHead(BaseEstimator):
    """What both share: the network, its training, and the forward pass in numpy."""

    _is_class: bool

    def __init__(
        self,
        hidden: int = 0,
        *,
        lr: float | None = None,
        weight_decay: float = 1e-2,
        dropout: float = 0.0,
        batch_size: int = 256,
        max_epochs: int = 40,
        patience: int = 10,
        validation_fraction: float = 0.1,
        cv: Any = None,
        class_weight: Any = None,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.hidden = hidden
        self.lr = lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.cv = cv
        self.class_weight = class_weight
        self.device = device
        self.random_state = random_state

    def _train(
        self,
        X: NDArray[np.floating],
        goal: NDArray[Any],
        weight: NDArray[np.floating],
        groups: Sequence[Any] | None,
        y: NDArray[Any],
        n_outputs: int,
    ) -> None:
        import torch

        device = _device(self.device)
        train, held = self._held_out(y, groups)
        offset, scale = _scaling(X, weight)
        dtype = torch.float64 if X.dtype == np.float64 and device == "cpu" else torch.float32
        tensors = [
            torch.as_tensor(np.ascontiguousarray(array)).to(device)
            for array in ((X - offset) / scale, goal, weight)
        ]
        tensors = [t.to(dtype) if t.is_floating_point() else t for t in tensors]
        rows, held_rows = torch.as_tensor(train).to(device), torch.as_tensor(held).to(device)
        size = min(self.batch_size, len(train))
        passes = max(1, _LEAST_STEPS * size // len(train))

        def batch_of(chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
            X, goal, weight = (tensor[chosen] for tensor in tensors)
            return X, goal, weight / weight.sum().clamp(min=1e-12)

        def batches(_epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
            for _ in range(passes):
                order = rows[torch.randperm(len(rows)).to(device)]
                yield from map(batch_of, torch.split(order, size))

        with torch.random.fork_rng(devices=None if device == "cuda" else []):
            torch.manual_seed(int(check_random_state(self.random_state).randint(2**31)))
            module = self._network(X.shape[1], n_outputs).to(device, dtype)

            def validate() -> float:
                return float(self._loss(module, *batch_of(held_rows)))

            rate = self._rate(X.shape[1])
            done = optimize(
                module, batches, self._loss, validate,
                [Group(list(module.parameters()), rate, self.weight_decay)],
                steps_per_epoch=passes * -(-len(train) // size), max_epochs=self.max_epochs,
                patience=self.patience,
            )  # fmt: skip
        self.n_epochs_ = done.epochs
        self.best_epoch_ = done.best_epoch
        linear = [child for child in module if isinstance(child, torch.nn.Linear)]
        self.coefs_ = [child.weight.detach().cpu().numpy().T.copy() for child in linear]
        self.intercepts_ = [child.bias.detach().cpu().numpy().copy() for child in linear]
        self.coefs_[0] /= self.coefs_[0].dtype.type(scale)  # the first layer takes X as it is
        self.intercepts_[0] -= offset.astype(self.coefs_[0].dtype) @ self.coefs_[0]

    def _rate(self, n_features: int) -> float:
        if self.lr is not None:
            return self.lr
        return 1e-3 if self.hidden else 0.1 / math.sqrt(n_features)

    def _network(self, n_features: int, n_outputs: int) -> torch.nn.Sequential:
        from torch import nn

        if not self.hidden:
            layer = nn.Linear(n_features, n_outputs)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            return nn.Sequential(layer)
        return nn.Sequential(
            nn.Linear(n_features, self.hidden),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, n_outputs),
        )

    def _held_out(
        self, y: NDArray[Any], groups: Sequence[Any] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hold rows out for early stopping; with too few of them, stop on the training rows."""
        rows = np.arange(len(y))
        pairs = self.cv
        if pairs is None:
            n_splits = max(round(1 / self.validation_fraction), 2)
            seed = int(check_random_state(self.random_state).randint(2**31))
            pairs = inner_folds(
                y, n_splits, random_state=seed, groups=groups, is_class=self._is_class
            )
        for train, held in pairs:
            return np.asarray(train), np.asarray(held)
        return rows, rows

    def _loss(
        self, module: Any, X: torch.Tensor, goal: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        from torch.nn import functional

        scores = module(X)
        if self._is_class:
            losses = functional.cross_entropy(scores, goal, reduction="none")
        else:
            losses = (scores[:, 0] - goal) ** 2
        return (losses * weight).sum()

    def _scores(self, X: Any) -> NDArray[np.floating]:
        """Run the network in numpy: shape (n_samples, n_outputs)."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        for place, (coef, intercept) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            if place:
                values = np.maximum(values, 0)
            values = values @ coef + intercept
        return np.asarray(values, np.float64)


class TorchClassifier(ClassifierMixin, _TorchHead):
    """Linear layer, or one hidden layer, under the log-loss.

    Parameters
    ----------
    hidden : int
        Hidden units; 0 is a linear head.
    lr : float, optional
        Peak learning rate of the one-cycle schedule; None: 0.001 with hidden units, without
        them 0.1 over the root of the number of features, for a step moves all of them.
    weight_decay : float
        Of AdamW.
    dropout : float
        Share of hidden units left out in training.
    batch_size, max_epochs, patience : int
        Early stopping ends it after ``patience`` epochs without a better held-out loss. An
        epoch has at least 16 batches: few rows are passed several times.
    validation_fraction : float
        Share of the rows held out for that.
    cv : list of (train rows, held-out rows), optional
        The first pair is used instead.
    class_weight : {"balanced", None} or dict
    device : {"auto", "cpu", "cuda"}
    random_state : int

    Attributes
    ----------
    coefs_, intercepts_ : lists of arrays
    n_epochs_, best_epoch_ : int

    Examples
    --------
    >>> X, y = np.linspace(-1, 1, 40)[:, None], np.repeat(["low", "high"], 20)
    >>> TorchClassifier().fit(X, y).predict([[-1.0], [1.0]])
    array(['low', 'high'], dtype='<U4')
    """

    _is_class = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train; ``groups`` stay together when rows are held out for early stopping."""
        X, y = validate_data(self, X, y, dtype=[np.float32, np.float64])
        self.classes_, codes = classes_of(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if self.class_weight is not None:
            by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
            weight = weight * by_class[codes]
        self._train(X, codes, weight, groups, y, len(self.classes_))
        return self

    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Give logits: one for two classes (of the second), else one a class."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes)."""
        return softmax(self._scores(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the class of the highest probability: shape (n_samples,)."""
        best = self._scores(X).argmax(axis=1)
        return np.asarray(self.classes_[best])


class TorchRegressor(RegressorMixin, _TorchHead):
    """Linear layer, or one hidden layer, under the squared error of the standardised target.

    The parameters are those of `TorchClassifier`.

    Examples
    --------
    >>> X = np.linspace(-1, 1, 40)[:, None]
    >>> bool(TorchRegressor().fit(X, 3 * X[:, 0]).score(X, 3 * X[:, 0]) > 0.9)
    True
    """

    _is_class = False

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train; ``groups`` stay together when rows are held out for early stopping."""
        X, y = validate_data(self, X, y, dtype=[np.float32, np.float64], y_numeric=True)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        y = np.asarray(y, np.float64)
        self.mean_ = float(np.average(y, weights=weight))
        self.scale_ = float(np.sqrt(np.average((y - self.mean_) ** 2, weights=weight))) or 1.0
        goal = (y - self.mean_) / self.scale_
        self._train(X, goal, weight, groups, y, 1)
        return self

    def predict(self, X: Any) -> NDArray[np.floating]:
        """Predict: shape (n_samples,)."""
        return self._scores(X)[:, 0] * self.scale_ + self.mean_


def _scaling(X: NDArray[np.floating], weight: NDArray[np.floating]) -> tuple[Any, float]:
    """Find the mean of every feature, and the one number that gives a feature variance 1."""
    share = weight / weight.sum()
    offset = share @ X
    variance = float((share @ (X - offset) ** 2).mean())
    return offset.astype(X.dtype), variance**0.5 or 1.0


def _device(device: str) -> str:
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
