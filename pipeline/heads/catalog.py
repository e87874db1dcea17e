"""Heads by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pipeline.errors import OptionError, UnknownNameError

__all__ = ["HEADS", "OWN_STEPS", "TRUSTED", "make_head"]

HEADS: dict[str, str] = {
    "logistic": "pipeline.heads.factories:logistic",
    "ridge": "pipeline.heads.factories:ridge",
    "svm": "pipeline.heads.factories:svm",
    "knn": "pipeline.heads.factories:knn",
    "lda": "pipeline.heads.factories:lda",
    "forest": "pipeline.heads.factories:forest",
    "boosting": "pipeline.heads.factories:boosting",
    "mlp": "pipeline.heads.factories:mlp",
    "linear": "pipeline.heads.factories:linear",
    "layer_ridge": "pipeline.heads.factories:layer_ridge",
    "best": "pipeline.heads.factories:best",
}
"""Import string of the factory of each head: ``factory(kind, class_weight, random_state)``."""

OWN_STEPS: dict[str, str] = {
    "AverageFusion": "pipeline.fusion.average",
    "BestClassifier": "pipeline.heads.best",
    "BestRegressor": "pipeline.heads.best",
    "ConcatFusion": "pipeline.fusion.concat",
    "LayerRidgeClassifier": "pipeline.heads.layer_ridge",
    "LayerRidgeRegressor": "pipeline.heads.layer_ridge",
    "Line": "pipeline.heads.members",
    "MatrixCalibration": "pipeline.heads.calibration",
    "PooledDiscriminant": "pipeline.heads.discriminant",
    "RandomFeatures": "pipeline.heads.random_features",
    "SeveralLabels": "pipeline.heads.several_labels",
    "SingleLayer": "pipeline.fusion.single",
    "TemperatureClassifier": "pipeline.heads.temperature",
    "TorchClassifier": "pipeline.heads.torch_heads",
    "TorchRegressor": "pipeline.heads.torch_heads",
    "TunedClassifier": "pipeline.heads.tuned",
    "TunedRegressor": "pipeline.heads.tuned",
    "WeightedFusion": "pipeline.fusion.average",
}
"""Our own fusers and heads, and where they live: a model file may name these and no others."""

TRUSTED: tuple[str, ...] = (
    "sklearn._loss.link.HalfLogitLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss._loss.CyHalfMultinomialLoss",
    "sklearn._loss._loss.CyHalfSquaredError",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance32",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._kd_tree.KDTree32",
    "sklearn.neighbors._kd_tree.KDTree64",
    "sklearn.tree._tree.Tree",
)
"""Internals of scikit-learn that the heads above hold, beside what skops trusts by itself."""


def make_head(
    head: Any,
    kind: str,
    *,
    class_weight: str | None = None,
    random_state: int = 0,
    labels: Sequence[str] | None = None,
) -> Any:
    """Build an unfitted head.

    Parameters
    ----------
    head : str or estimator
        A key of `HEADS`, or any scikit-learn predictor, which is cloned.
    kind : {"class", "multilabel", "number"}
    class_weight : {"balanced", None}
        Weighs rare classes up.
    random_state : int
    labels : sequence of str, optional
        Names of the labels of a ``multilabel`` target.

    Raises
    ------
    UnknownNameError
        For a name that is no head.
    OptionError
        For a head that cannot predict this kind, or cannot weigh classes.

    Examples
    --------
    >>> make_head("forest", "class").n_estimators
    300
    """
    if not isinstance(head, str):
        from sklearn.base import clone

        if not (hasattr(head, "fit") and hasattr(head, "predict")):
            raise OptionError(
                f"head is {head!r}, but must be a name ({', '.join(HEADS)}) or an estimator with "
                "fit and predict."
            )
        own = clone(head)
        return _several(own, labels) if kind == "multilabel" else own
    if head not in HEADS:
        raise UnknownNameError("head", head, ["auto", *HEADS])
    module, _, factory = HEADS[head].partition(":")
    single = "class" if kind == "multilabel" else kind
    own = getattr(import_module(module), factory)(single, class_weight, random_state)
    return _several(own, labels) if kind == "multilabel" else own


def _several(estimator: Any, labels: Sequence[str] | None) -> Any:
    from pipeline.heads.several_labels import SeveralLabels

    return SeveralLabels(estimator, labels)
