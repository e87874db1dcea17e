"""MultiTaskTransfer: pictures in, predictions of several targets out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pipeline.errors import InputError, UnknownNameError
from pipeline.estimators.transfers import Transfers
from pipeline.model import spread
from pipeline.results import headline, with_probabilities
from pipeline.samples import Target, choose_targets, frame_columns
from pipeline.training import measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones import Backbone

__all__ = ["MultiTaskTransfer"]


class MultiTaskTransfer(Transfers):
    """Pictures in, several targets out: one frozen backbone, a head of its own for each target.

    Every head is the one that its target would get alone, on the rows that have a label of it.

    Parameters
    ----------
    backbone, layers, pooling, image_size, resize, cache_dir, batch_size, device, precision
        As for `LayerEmbedder`.
    fusion, head
        As for `TransferClassifier`, for every target; ``"auto"`` is found for each by itself.
    class_weight : {"balanced", None}
        Of the targets that have classes.
    finetune_blocks : int
        How many blocks of the network are trained after the heads, see `pipeline.tune`; 0 leaves
        it frozen. What a tuned network gives is not kept: every call embeds.
    kinds : dict of str to {"class", "multilabel", "number"}, optional
        Kinds of targets whose values do not say it.
    on_bad_input : {"fail", "skip"}
        ``skip`` leaves an unreadable picture out of fit, and predicts None or NaN for it.
    random_state : int

    Attributes
    ----------
    classes_ : dict of str to array
        Classes of each target that has any, in the order of the probabilities.
    model_ : TransferModel
    tuning_ : Tuning or None
        How fine-tuning went: ``kept``, ``epochs``, ``frozen_loss``, ``tuned_loss``, ...

    Examples
    --------
    >>> from pipeline.backbones import load_backbone
    >>> pictures = np.zeros((20, 40, 40), np.uint8)
    >>> pictures[10:, :20] = 255
    >>> targets = {"kind": ["dark"] * 10 + ["half"] * 9 + [None], "grey": [0.0] * 10 + [90.4] * 10}
    >>> both = MultiTaskTransfer(load_backbone("timm/test_resnet", weights=None))
    >>> predicted = both.fit(pictures, targets).predict(pictures[[0, 19]])
    >>> predicted["kind"], predicted["grey"].round()
    (array(['dark', 'half'], dtype='<U4'), array([ 0., 90.]))
    """

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
        kinds: Mapping[str, str] | None = None,
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
        self.kinds = kinds

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Embed the pictures, and train a head for each target.

        Parameters
        ----------
        X : sequence of paths, PIL images or uint8 arrays
        y : dict of str to sequence of shape (n_samples,), or data frame
            A column for each target. None, NaN or ``""`` is a missing label: such a row does
            not count for this target. Text is a class, numbers are numbers, or classes where
            all are whole and of at most 20 values; ``kinds`` overrules it.
        groups : sequence of shape (n_samples,), optional
            Rows of one group stay together in the inner folds.
        """
        fetched = self._fetch(X)
        columns = _columns(y, len(X))
        targets = choose_targets(columns, list(columns), self.kinds)
        return self._fit(X, targets, fetched, groups=groups)

    @property
    def classes_(self) -> dict[str, NDArray[Any]]:
        """Classes of each target that has any, in the order of the probabilities."""
        check_is_fitted(self, "model_")
        heads, results = self.model_.heads, self.model_.results
        return {
            name: np.asarray(head.classes_)
            for name, head in heads.items()
            if results[name].kind != "number"
        }

    def predict(self, X: Any) -> dict[str, NDArray[Any]]:
        """Predict every target: arrays of shape (n_samples,), by its name.

        Several labels are 0/1 of shape (n_samples, n_labels); None or NaN stands for a skipped
        picture.
        """
        matrix, usable = self._head_input(X)
        return {
            name: spread(head.predict(matrix), usable, self.model_.results[name].kind)
            for name, head in self.model_.heads.items()
        }

    def predict_proba(self, X: Any) -> dict[str, NDArray[np.floating]]:
        """Give class probabilities: arrays of shape (n_samples, n_classes), by target.

        A target that is a number has no entry; NaN stands for a skipped picture.
        """
        check_is_fitted(self)
        names = with_probabilities(self.model_.results)
        matrix, usable = self._head_input(X)
        heads = self.model_.heads
        return {name: spread(heads[name].predict_proba(matrix), usable, "number") for name in names}

    def score(self, X: Any, y: Any) -> dict[str, float]:
        """Give the accuracy of each target, R squared of a number, macro F1 of several labels.

        Parameters
        ----------
        X : as for `fit`
        y : dict of columns, or data frame
            Of all targets or of some; a row without a label, or that cannot be read, does not
            count.
        """
        matrix, usable = self._head_input(X)
        results = self.model_.results
        scores: dict[str, float] = {}
        for name, cells in _columns(y, len(X)).items():
            if name not in results:
                raise UnknownNameError("target", name, list(results))
            truth = Target.decide(name, cells, results[name].kind).subset(usable)
            if not truth.present.any():
                raise InputError(
                    f"no input has both a label of {name!r} and a readable picture: there is "
                    "nothing to score. Label some, or leave the target out."
                )
            figures = measure(
                self.model_.heads[name], [matrix[truth.present]], truth.subset(truth.present)
            )
            value = figures[headline(results[name].kind)]
            scores[name] = np.nan if value is None else value
        return scores

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags


def _columns(y: Any, n_samples: int) -> dict[str, Any]:
    """Take labels as one column a target, all of them of ``n_samples``."""
    try:
        columns = dict(y) if isinstance(y, Mapping) else frame_columns(y)
    except InputError:
        raise InputError(
            f"y is of the type {type(y).__name__}, but must be a dict of columns or a data frame: "
            "one column for each target. TransferClassifier and TransferRegressor take one alone."
        ) from None
    if not columns:
        raise InputError("y has no column. Give one for each target.")
    for name, cells in columns.items():
        if not isinstance(name, str):
            raise InputError(f"target {name!r} has no text for a name. Name it, like 'species'.")
        if len(cells) != n_samples:
            raise InputError(
                f"target {name!r} has {len(cells)} labels, but X has {n_samples} inputs. Give one "
                "label for each input, None where there is none."
            )
    return columns
