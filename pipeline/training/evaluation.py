"""evaluate(): a model measured on labelled inputs that it was not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cache import EmbeddingStore
from pipeline.errors import InputError
from pipeline.model import TransferModel, as_samples
from pipeline.results import TargetResults
from pipeline.samples import SampleSet, Target
from pipeline.training.figures import measure, no_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.model import Embedded

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model on other rows.

    Parameters
    ----------
    results : dict of str to TargetResults
        ``n_test`` counts the rows that were measured on.
    left_out : int
        Rows that were not looked at because their content was there to train on.
    failed : dict of str to str
        Inputs that could not be read, with the reason.
    """

    results: Mapping[str, TargetResults]
    left_out: int
    failed: Mapping[str, str]


def evaluate(
    model: TransferModel,
    data: SampleSet | EmbeddingStore | str | Path,
    *,
    include_training: bool = False,
    **options: Any,
) -> Evaluation:
    """Measure a model.

    Parameters
    ----------
    model : TransferModel
    data : SampleSet, EmbeddingStore or source
        Inputs with a column for each target of the model.
    include_training : bool
        Also measure on rows whose content was trained on.
    **options
        ``device``, ``batch_size``, ``max_pixels``, ``progress``.

    Raises
    ------
    InputError
        When the labels of a target are missing, or no row is left.
    """
    if not isinstance(data, EmbeddingStore):
        data = as_samples(data)
    truths = {name: _truth(name, found, data) for name, found in model.results.items()}
    embedded = model.embed(data, on_bad_input="skip", **options)
    if not embedded.usable.any():
        raise InputError(
            f"none of the {len(embedded.usable) or len(embedded.failed)} inputs could be read: "
            f"there is nothing to measure on.{_first(embedded.failed)}"
        )
    fresh = _fresh(model, embedded, include_training)
    if not fresh.any():
        raise InputError(
            "every row of this source was trained on: there is nothing to measure on. Give "
            "other inputs, or --include-training to see the figures of the training rows."
        )
    results = {}
    for name, head in model.heads.items():
        truth = truths[name].subset(embedded.usable)
        rows = fresh & truth.present
        figures: Mapping[str, float | None] = no_figures(truth.kind)
        if rows.any():
            figures = measure(head, [embedded.X[rows]], truth.subset(rows))
        results[name] = dataclasses.replace(
            model.results[name], figures=figures, n_test=int(rows.sum())
        )
    return Evaluation(results, int((~fresh).sum()), embedded.failed)


def _first(failed: Mapping[str, str]) -> str:
    """Quote the first failure, if there is one."""
    return "".join(f" The first is {name}: {reason}." for name, reason in [*failed.items()][:1])


def _fresh(model: TransferModel, embedded: Embedded, include_training: bool) -> NDArray[np.bool_]:
    if include_training or model.split is None:
        return np.ones(len(embedded.digests), bool)
    seen = set(model.split.train_digests)
    return np.array([digest not in seen for digest in embedded.digests], bool)


def _truth(name: str, results: TargetResults, data: SampleSet | EmbeddingStore) -> Target:
    columns = (
        {column: found.values for column, found in data.targets.items()}
        if isinstance(data, EmbeddingStore)
        else data.columns
    )
    if name not in columns:
        raise InputError(
            f"the source has no labels for the target {name!r}: it has "
            f"{', '.join(map(repr, columns)) or 'no column at all'}. Put the images into class "
            f"folders, or give a table with the columns 'path' and {name!r}."
        )
    return Target.decide(name, columns[name], results.kind, data.ids)
