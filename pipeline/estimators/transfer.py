"""TransferClassifier and TransferRegressor: pictures in, predictions out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import check_is_fitted

from pipeline.errors import InputError
from pipeline.estimators.transfers import Transfers
from pipeline.model import spread
from pipeline.samples import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones import Backbone

__all__ = ["TransferClassifier", "TransferRegressor"]

TARGET = "label"
"""Name of the only target in the model of an estimator."""


class _OneTarget(Transfers):
    """What classifier and regressor share."""

    _kind: str

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Embed the pictures, and train a head on them.

        Parameters
        ----------
        X : sequence of paths, PIL images or uint8 arrays
        y : sequence of shape (n_samples,)
            None, NaN or ``""`` is a missing label: such a row is left out.
        sample_weight : array of shape (n_samples,), optional
        groups : sequence of shape (n_samples,), optional
            Rows of one group stay together in the inner folds.
        """
        fetched = self._fetch(X)
        target = Target.decide(TARGET, _column(y, len(X)), self._kind)
        return self._fit(X, {TARGET: target}, fetched, sample_weight=sample_weight, groups=groups)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict: shape (n_samples,); None or NaN for a skipped picture."""
        matrix, usable = self._head_input(X)
        return spread(self.model_.heads[TARGET].predict(matrix), usable, self._kind)


class TransferClassifier(ClassifierMixin, _OneTarget):
    """Pictures in, labels out: a frozen backbone, fused layers and a head.

    Parameters
    ----------
    backbone, layers, pooling, image_size, resize, cache_dir, batch_size, device, precision
        As for `LayerEmbedder`.
    fusion : str
        ``"auto"``, ``"last"``, ``"single:LAYER"``, ``"concat"``, ``"average"`` or
        ``"weighted"``; for ridge also ``"evidence"``, ``"late"``, ``"forward"`` or
        ``"selection"``.
    head : str or estimator
        ``"auto"``, a key of `pipeline.heads.HEADS`, or any scikit-learn classifier.
    class_weight : {"balanced", None}
    finetune_blocks : int
        How many blocks of the network are trained after the head, see `pipeline.tune`; 0 leaves
        it frozen. What a tuned network gives is not kept: every call embeds.
    on_bad_input : {"fail", "skip"}
        ``skip`` leaves an unreadable picture out of fit, and predicts None for it.
    random_state : int

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    model_ : TransferModel
    tuning_ : Tuning or None
        How fine-tuning went: ``kept``, ``epochs``, ``frozen_loss``, ``tuned_loss``, ...

    Examples
    --------
    >>> from pipeline.backbones import load_backbone
    >>> pictures = np.zeros((20, 40, 40), np.uint8)
    >>> pictures[10:, :20] = 255
    >>> labels = ["dark"] * 10 + ["half"] * 10
    >>> clf = TransferClassifier(load_backbone("timm/test_resnet", weights=None), head="lda")
    >>> clf.fit(pictures, labels).predict(pictures[[0, 19]])
    array(['dark', 'half'], dtype='<U4')
    """

    _kind = "class"

    def __init__(
        self,
        backbone: str | Backbone = "efficientnet_lite0",
        *,
        layers: str | Sequence[str] = "auto",
        pooling: str = "auto",
        image_size: int | None = None,
        resize: str = "crop",
        fusion: str = "auto",
        head: Any = "auto",
        class_weight: str | None = None,
        finetune_blocks: int = 0,
        cache_dir: str | Path | None = None,
        batch_size: int | str = "auto",
        device: str = "auto",
        precision: str = "auto",
        on_bad_input: str = "fail",
        random_state: int = 0,
    ) -> None:
        super().__init__(
            backbone,
            layers=layers,
            pooling=pooling,
            image_size=image_size,
            resize=resize,
            fusion=fusion,
            head=head,
            finetune_blocks=finetune_blocks,
            cache_dir=cache_dir,
            batch_size=batch_size,
            device=device,
            precision=precision,
            on_bad_input=on_bad_input,
            random_state=random_state,
        )
        self.class_weight = class_weight

    @property
    def classes_(self) -> NDArray[Any]:
        """Classes in the order of the probabilities."""
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.heads[TARGET].classes_)

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes); NaN for a skipped picture."""
        matrix, usable = self._head_input(X)
        return spread(self.model_.heads[TARGET].predict_proba(matrix), usable, "number")


class TransferRegressor(RegressorMixin, _OneTarget):
    """Pictures in, numbers out; parameters as for `TransferClassifier`, without class weights.

    Examples
    --------
    >>> from pipeline.backbones import load_backbone
    >>> pictures = np.stack([np.full((40, 40), grey, np.uint8) for grey in range(0, 250, 10)])
    >>> backbone = load_backbone("timm/test_resnet", weights=None)
    >>> reg = TransferRegressor(backbone).fit(pictures, np.arange(25.0))
    >>> bool(reg.score(pictures, np.arange(25.0)) > 0.9)
    True
    """

    _kind = "number"


def _column(y: Any, n_samples: int) -> Any:
    """Take labels as a column of ``n_samples``; a column vector with scikit-learn's warning."""
    shape = np.shape(y) if hasattr(y, "shape") else (len(y),)
    if shape == (n_samples, 1):
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Give y.ravel().",
            DataConversionWarning,
            stacklevel=3,
        )
        return np.asarray(y)[:, 0]
    if shape != (n_samples,):
        raise InputError(
            f"y has the shape {shape}, but X has {n_samples} inputs. Give one label for each input."
        )
    return y
