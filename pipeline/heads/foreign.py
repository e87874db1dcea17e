"""Estimators of the user's own, made fit to serve as heads."""

from __future__ import annotations

from typing import Any

from pipeline.errors import OptionError
from pipeline.heads.temperature import TemperatureClassifier

__all__ = ["suited"]


def suited(head: Any, kind: str, *, class_weight: str | None = None, random_state: int = 0) -> Any:
    """Take any scikit-learn estimator so that it serves a kind of target.

    Parameters
    ----------
    head : estimator
    kind : {"class", "multilabel", "number"}
    class_weight : {"balanced", None}
    random_state : int

    Returns
    -------
    estimator
        Unfitted; for classes with ``predict_proba``, by temperature where it only scores.

    Raises
    ------
    OptionError
        When it predicts something else, cannot weigh classes, or does not even score.

    Examples
    --------
    >>> from sklearn.svm import LinearSVC
    >>> suited(LinearSVC(), "class")
    TemperatureClassifier(estimator=LinearSVC())
    """
    from sklearn.base import clone, is_classifier, is_regressor

    name = type(head).__name__
    if is_classifier(head) if kind == "number" else is_regressor(head):
        predicts, wanted = (
            ("classes", "regressor") if kind == "number" else ("numbers", "classifier")
        )
        raise OptionError(
            f"the head {name} predicts {predicts}, but the target is of kind {kind}. Give a "
            f"{wanted}, or a name: auto."
        )
    if class_weight is not None:
        if "class_weight" not in head.get_params():
            raise OptionError(
                f"class weight {class_weight} does not apply to the head {name}, which has no such "
                "parameter. Leave it out, or set it inside the estimator."
            )
        head = clone(head).set_params(class_weight=class_weight)
    if kind == "number" or hasattr(head, "predict_proba"):
        return head
    if hasattr(head, "decision_function"):
        return TemperatureClassifier(head, random_state=random_state)
    raise OptionError(
        f"the head {name} gives neither probabilities nor scores. Give a classifier with "
        "predict_proba or decision_function, or a name: auto."
    )
