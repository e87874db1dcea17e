"""Layer-aware ridge: penalties of layers and strength without refitting, calibrated.

Indicators of classes, or numbers, are regressed on all layers at once. Features are scaled,
layers get an equal say, each layer a penalty; the strength of all penalties and the temperature
of the probabilities are those of the lowest log-loss on rows left out (Dempster, Webb and
Schmidt, 2024, arXiv 2401.15610). Nothing is fitted twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import validate_data

from pipeline.errors import InputError, OptionError
from pipeline.heads.calibration import MatrixCalibration, matrix_calibration
from pipeline.heads.judging import ClassJudge, NumberJudge
from pipeline.heads.labels import Labels, class_labels, number_labels
from pipeline.heads.layer_scaling import Penalties
from pipeline.heads.ridge_base import LayerRidge, accepted
from pipeline.heads.temperature import softmax, two_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LayerRidgeClassifier", "LayerRidgeRegressor"]


class LayerRidgeClassifier(ClassifierMixin, LayerRidge):
    """Ridge on indicators of classes, over any number of layers, with calibrated probabilities.

    Parameters
    ----------
    layer_slices : dict of str to slice, or None
        Columns of each layer, all of ``X``; None takes ``X`` for one layer.
    penalties : {"evidence", "uniform"} or dict of str to float
        Penalty of each layer, relative to the others. ``evidence``: those under which the
        labels are likeliest (MacKay, 1992; Tipping, 2001), so that a layer of noise is
        dropped. A dict need not name every layer; the others get 1.
    alphas : sequence of float, optional
        Strengths to compare, on features of mean variance 1. When not given, 20 from 1e-5 to
        100 times the mean eigenvalue.
    scaling : {"shrunk", "standard", "trace"}
        Of the features within a layer: each over its standard deviation (``standard``), not at
        all (``trace``), or over the root of a variance halfway between its own and its layer's
        mean (``shrunk``), so that a channel that is all but dead in a few rows does not explode
        in others. Then layers get equal variance.
    class_weight : {"balanced", None} or dict
    calibration : {"temperature", "matrix"}
        ``matrix`` also learns which classes are mistaken for which, wherever that lowers the
        log-loss on rows that it has not seen by more than one standard error.
    cv : list of (train rows, test rows), optional
        The rows of one test side leave together, instead of those of one group.
    random_state : int, RandomState or None
        Of the 20,000 rows that are looked at where there are more.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    coef_ : array of shape (n_classes, n_features), or (1, n_features) for two classes
        Of the columns of ``X`` as they are.
    intercept_ : array of shape (n_classes,) or (1,)
    alpha_, temperature_ : float
    layer_penalties_ : dict of str to float
        Strength times penalty of each layer, on scaled features.
    layer_importance_ : dict of str to float
        Share of each layer in the effective degrees of freedom.
    loo_score_, loo_log_loss_ : float
        Accuracy and log-loss of rows left out, weighted as the fit is. A row that is alone in
        its class does not count.
    loo_proba_ : array of shape (n_samples, n_classes)
        Probabilities of each row by the fit without it, or without its group. Of more than
        20,000 rows, NaN for those of groups that were not looked at.
    calibration_ : MatrixCalibration or None
        What turns ``scores / temperature_`` into logits.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["elk", "owl"], 30)
    >>> X = rng.normal(size=(60, 5))
    >>> X[y == "owl", 3:] += 4
    >>> head = LayerRidgeClassifier({"low": slice(0, 3), "high": slice(3, 5)}).fit(X, y)
    >>> head.loo_score_ > 0.9, head.layer_importance_["high"] > 0.9
    (True, True)
    """

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        penalties: Penalties = "evidence",
        alphas: Sequence[float] | None = None,
        scaling: str = "shrunk",
        class_weight: Any = None,
        calibration: str = "temperature",
        cv: Any = None,
        random_state: Any = 0,
    ) -> None:
        self.layer_slices = layer_slices
        self.penalties = penalties
        self.alphas = alphas
        self.scaling = scaling
        self.class_weight = class_weight
        self.calibration = calibration
        self.cv = cv
        self.random_state = random_state

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Add rows to those of the calls before; `fit` forgets them.

        Their moments are added up, and at most 20,000 of the rows are kept to be left out.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : array of shape (n_samples,)
        sample_weight : array of shape (n_samples,), optional
        classes : array of shape (n_classes,), optional
            All classes that will come; the first call needs them unless it has rows of each.
        """
        if self.class_weight == "balanced":
            raise OptionError(
                "class_weight is 'balanced', but the sizes of the classes are not known before "
                "the last row has come. Give a dict of weights, or sample_weight."
            )
        if getattr(self, "stream_", None) is None:
            self.classes_ = np.unique(y if classes is None else classes)
            if len(self.classes_) < 2:
                raise InputError(
                    f"y has only one class, {self.classes_.tolist()[0]!r}: at least two are "
                    "needed. Name all classes in the first call: classes=[...]."
                )
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise InputError(
                f"classes is {np.unique(classes).tolist()}, but was {self.classes_.tolist()} in "
                "the first call. Give the same, or leave it out."
            )
        return super().partial_fit(X, y, sample_weight)

    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Give logits: one for two classes (of the second), else one a class."""
        logits = self._logits(two_columns(self._scores(X)))
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes)."""
        return softmax(self._logits(two_columns(self._scores(X))))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the likeliest class: shape (n_samples,)."""
        best = self._logits(two_columns(self._scores(X))).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def _logits(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        logits = scores / self.temperature_
        return np.asarray(logits if self.calibration_ is None else self.calibration_.of(logits))

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        checks = {"dtype": accepted(X), "ensure_all_finite": False, "reset": reset}
        return tuple(validate_data(self, X, y, **checks))

    def _labels(
        self, y: Any, weight: NDArray[np.float64], families: Any, *, known: bool = False
    ) -> Labels:
        classes = self.classes_ if known else None
        labels = class_labels(y, weight, families, self.class_weight, classes)
        self.classes_ = np.asarray(labels.classes)
        return labels

    def _judge(self, Y: NDArray[np.floating], weight: NDArray[np.float64]) -> ClassJudge:
        alone = Y[weight > 0].sum(axis=0) == 1
        codes = Y.argmax(axis=1)
        return ClassJudge(codes, np.where(alone[codes], 0, weight))

    def _keep_line(
        self, coef: NDArray[np.float64], intercept: NDArray[np.float64], temperature: float
    ) -> None:
        if len(coef) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.coef_, self.intercept_, self.temperature_ = coef, intercept, temperature
        self.calibration_: MatrixCalibration | None = None

    def _keep_loss(self, loss: float | None) -> None:
        self.loo_log_loss_ = loss

    def _keep_scores(self, scores: NDArray[np.floating]) -> None:
        self.loo_proba_ = softmax(scores / self.temperature_)

    def _forget(self) -> None:
        super()._forget()
        del self.loo_proba_

    def _calibrate(
        self,
        scores: NDArray[np.floating],
        judge: ClassJudge,
        groups: NDArray[np.int64] | None,
    ) -> None:
        if self.calibration not in ("temperature", "matrix"):
            raise OptionError(
                f"calibration is {self.calibration!r}, but must be temperature or matrix."
            )
        if self.calibration == "temperature":
            return
        if scores.shape[1] == 2:
            scores = two_columns(scores[:, 1:] - scores[:, :1])
        logits = scores / self.temperature_
        self.calibration_ = matrix_calibration(logits, judge, groups, self._seed())


class LayerRidgeRegressor(MultiOutputMixin, RegressorMixin, LayerRidge):
    """Ridge on numbers, over any number of layers.

    Parameters
    ----------
    layer_slices, penalties, alphas, scaling, cv, random_state
        As for `LayerRidgeClassifier`.

    Attributes
    ----------
    coef_ : array of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float, or array of shape (n_outputs,)
    alpha_ : float
    layer_penalties_, layer_importance_ : dict of str to float
    loo_score_, loo_mse_ : float
        R squared and squared error of rows left out.
    loo_prediction_ : array of the shape of ``y``

    Examples
    --------
    >>> X = np.arange(40.0).reshape(20, 2) % 7
    >>> head = LayerRidgeRegressor({"a": slice(0, 1), "b": slice(1, 2)}).fit(X, 2 * X[:, 0])
    >>> head.predict([[5.0, 1.0]]).round(2)
    array([10.])
    """

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        penalties: Penalties = "evidence",
        alphas: Sequence[float] | None = None,
        scaling: str = "shrunk",
        cv: Any = None,
        random_state: Any = 0,
    ) -> None:
        self.layer_slices = layer_slices
        self.penalties = penalties
        self.alphas = alphas
        self.scaling = scaling
        self.cv = cv
        self.random_state = random_state

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predict: the shape of ``y``, for other rows."""
        return self._scores(X)

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        checks = {"dtype": accepted(X), "ensure_all_finite": False, "reset": reset}
        checked = validate_data(self, X, y, multi_output=True, y_numeric=True, **checks)
        return tuple(checked)

    def _labels(
        self, y: Any, weight: NDArray[np.float64], families: Any, *, known: bool = False
    ) -> Labels:
        self._single = np.ndim(y) == 1
        return number_labels(y, weight)

    def _judge(self, Y: NDArray[np.floating], weight: NDArray[np.float64]) -> NumberJudge:
        return NumberJudge(Y.astype(np.float64), weight)

    def _keep_line(
        self, coef: NDArray[np.float64], intercept: NDArray[np.float64], temperature: float
    ) -> None:
        self.coef_ = coef[0] if self._single else coef
        self.intercept_ = float(intercept[0]) if self._single else intercept

    def _keep_loss(self, loss: float | None) -> None:
        self.loo_mse_ = loss

    def _keep_scores(self, scores: NDArray[np.floating]) -> None:
        self.loo_prediction_ = scores[:, 0] if self._single else scores

    def _forget(self) -> None:
        super()._forget()
        del self.loo_prediction_
