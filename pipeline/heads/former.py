"""Steps of old model files, which newer ones have taken the place of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["FORMER_STEPS"]


def _classifier(state: Mapping[str, Any]) -> Any:
    """Read the ridge of version 1, whose weights lay the other way round."""
    from pipeline.heads.layer_ridge import LayerRidgeClassifier

    head = LayerRidgeClassifier(
        penalties="uniform",
        alphas=state["alphas"],
        scaling="trace",
        class_weight=state["class_weight"],
        cv=state["cv"],
        random_state=state["random_state"],
    )
    coef, intercept = state["coef_"].T, state["intercept_"]
    if len(coef) == 2:
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    head.classes_, head.n_features_in_ = state["classes_"], coef.shape[1]
    head.coef_, head.intercept_ = coef, intercept
    head.alpha_, head.temperature_ = state["alpha_"], state["temperature_"]
    head.calibration_ = head.stream_ = None
    return head


def _regressor(state: Mapping[str, Any]) -> Any:
    from pipeline.heads.layer_ridge import LayerRidgeRegressor

    head = LayerRidgeRegressor(
        penalties="uniform",
        alphas=state["alphas"],
        scaling="trace",
        cv=state["cv"],
        random_state=state["random_state"],
    )
    head.coef_, head.intercept_ = state["coef_"][:, 0], float(state["intercept_"][0])
    head.alpha_, head.n_features_in_, head.stream_ = state["alpha_"], len(head.coef_), None
    return head


FORMER_STEPS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "LooRidgeClassifier": _classifier,
    "LooRidgeRegressor": _regressor,
}
"""What builds a step of today from the state of a step that is no more."""
