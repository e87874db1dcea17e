"""How each named head is made. Every class head gives probabilities."""

from __future__ import annotations

from typing import Any

from pipeline.errors import OptionError
from pipeline.heads.best import BestClassifier, BestRegressor
from pipeline.heads.catalog import HEADS
from pipeline.heads.discriminant import PooledDiscriminant
from pipeline.heads.layer_ridge import LayerRidgeClassifier, LayerRidgeRegressor
from pipeline.heads.temperature import TemperatureClassifier
from pipeline.heads.torch_heads import TorchClassifier, TorchRegressor
from pipeline.heads.tuned import TunedClassifier, TunedRegressor

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
NEIGHBOURS = (1, 3, 5, 10, 20)
_CLASS_ONLY = ("logistic", "lda")


def logistic(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Multinomial logistic regression; ``C`` by inner log-loss."""
    from sklearn.linear_model import LogisticRegression

    _only_classes("logistic", kind)
    own = LogisticRegression(class_weight=class_weight, max_iter=200, tol=1e-3, warm_start=True)
    return TunedClassifier(own, "C", STRENGTHS, random_state=random_state)


def ridge(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Ridge regression on a number or on class indicators; alpha by exact leave-one-out."""
    return _layer_ridge("ridge", kind, class_weight, random_state, "uniform")


def layer_ridge(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Ridge over all layers, each with a penalty of its own; fuses by itself."""
    return _layer_ridge("layer_ridge", kind, class_weight, random_state, "evidence")


def best(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Ridge, ridge on random features and logistic regression, stacked; fuses by itself."""
    if kind == "number":
        _no_weights("best", class_weight)
        return BestRegressor(random_state=random_state)
    return BestClassifier(class_weight=class_weight, random_state=random_state)


def _layer_ridge(
    head: str, kind: str, class_weight: str | None, random_state: int, penalties: str
) -> Any:
    shared: dict[str, Any] = {"penalties": penalties, "random_state": random_state}
    if kind == "number":
        _no_weights(head, class_weight)
        return LayerRidgeRegressor(**shared)
    return LayerRidgeClassifier(class_weight=class_weight, calibration="matrix", **shared)


def svm(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Linear support vector machine; ``C`` by inner loss."""
    from sklearn.svm import LinearSVC, LinearSVR

    if kind == "number":
        _no_weights("svm", class_weight)
        own = LinearSVR(loss="squared_epsilon_insensitive", dual=False, random_state=random_state)
        return TunedRegressor(own, "C", STRENGTHS, random_state=random_state)
    scored = TemperatureClassifier(
        LinearSVC(class_weight=class_weight, random_state=random_state), random_state=random_state
    )
    return TunedClassifier(scored, "estimator__C", STRENGTHS[1:4], random_state=random_state)


def knn(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Nearest neighbours, the near ones weighing more; their number by inner loss."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    _no_weights("knn", class_weight)
    # By brute force, as scikit-learn does from 16 features on by itself: its trees count their
    # searches, so that a model would be saved as other bytes after it has predicted.
    if kind == "number":
        own: Any = KNeighborsRegressor(weights="distance", algorithm="brute")
        return TunedRegressor(own, "n_neighbors", NEIGHBOURS, random_state=random_state)
    own = KNeighborsClassifier(weights="distance", algorithm="brute")
    return TunedClassifier(own, "n_neighbors", NEIGHBOURS, random_state=random_state)


def lda(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Linear discriminant analysis, its covariance shrunk as Ledoit and Wolf (2004) say."""
    _only_classes("lda", kind)
    return PooledDiscriminant(class_weight=class_weight)


def forest(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Random forest of 300 trees."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    if kind == "number":
        _no_weights("forest", class_weight)
        return RandomForestRegressor(300, max_features="sqrt", random_state=random_state)
    return RandomForestClassifier(300, class_weight=class_weight, random_state=random_state)


def boosting(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Gradient boosting on histograms, a tenth of the features at each split.

    No early stopping: scikit-learn's fails on a class of one row, and knows no groups.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    shared = {"max_features": 0.1, "early_stopping": False, "random_state": random_state}
    if kind == "number":
        _no_weights("boosting", class_weight)
        return HistGradientBoostingRegressor(**shared)
    return HistGradientBoostingClassifier(class_weight=class_weight, **shared)


def linear(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Linear torch head with early stopping."""
    if kind == "number":
        _no_weights("linear", class_weight)
        return TorchRegressor(random_state=random_state)
    return TorchClassifier(class_weight=class_weight, random_state=random_state)


def mlp(kind: str, class_weight: str | None, random_state: int) -> Any:
    """Torch head with one hidden layer of 256 units and early stopping."""
    shared: dict[str, Any] = {"dropout": 0.3, "random_state": random_state}
    if kind == "number":
        _no_weights("mlp", class_weight)
        return TorchRegressor(256, **shared)
    return TorchClassifier(256, class_weight=class_weight, **shared)


def _only_classes(head: str, kind: str) -> None:
    if kind == "number":
        *others, last = (name for name in HEADS if name not in _CLASS_ONLY)
        raise OptionError(
            f"head {head} predicts classes, but the target is a number. "
            f"Use {', '.join(others)} or {last}."
        )


def _no_weights(head: str, class_weight: str | None) -> None:
    if class_weight is not None:
        raise OptionError(
            f"class weight {class_weight} does not apply to the head {head} here. "
            "Leave it out, or use logistic, ridge, svm, lda, forest, boosting, mlp or linear on "
            "a class."
        )
