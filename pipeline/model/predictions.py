"""Predictions as a table: one row for each input, in order, an empty cell where there is none."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.durable import write_durably
from pipeline.errors import BadInputError, InputError, OptionError
from pipeline.samples import Target, guarded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.cache import EmbeddingStore
    from pipeline.model.transfer_model import TransferModel
    from pipeline.samples import SampleSet

__all__ = ["PredictionTable", "heldout_table", "predictions_table", "write_table"]

NO_LABEL = "|"
"""Cell of a row that has none of several labels; an empty cell is a row without an answer."""


@dataclass(frozen=True)
class PredictionTable:
    """What stands in ``predictions.csv``.

    Parameters
    ----------
    header : list of str
    rows : list of lists of str
    failed : dict of str to str
        Reason by id of inputs without a prediction.
    """

    header: list[str]
    rows: list[list[str]]
    failed: Mapping[str, str]

    @property
    def answered(self) -> int:
        """Rows with a prediction."""
        place = self.header.index("prediction")
        return sum(row[place] != "" for row in self.rows)

    @property
    def withheld(self) -> int:
        """Rows of readable inputs whose prediction was not sure enough."""
        return sum(row[0] not in self.failed for row in self.rows) - self.answered

    def write(self, path: Path) -> None:
        """Write the table as CSV, whole or not at all."""
        write_table(path, self.header, self.rows)


def predictions_table(
    model: TransferModel,
    samples: SampleSet,
    *,
    proba: bool = False,
    min_confidence: float | None = None,
    on_bad_input: str = "skip",
    **options: Any,
) -> PredictionTable:
    """Predict a sample set.

    Rows stand in the order of the samples; inputs that failed before they could be read (a
    table's row without a file, say) follow at the end. Both keep an empty cell.

    Parameters
    ----------
    model, samples
    proba : bool
        Add a column for each class.
    min_confidence : float, optional
        Leave the prediction empty where the top probability is lower; for several labels,
        where any of them is less certain to be there, or not to be.
    on_bad_input : {"skip", "fail"}
    **options
        ``device``, ``batch_size``, ``max_pixels``, ``progress``.

    Raises
    ------
    OptionError
        When probabilities are asked of a number.
    """
    numbers = [name for name, found in model.results.items() if found.kind == "number"]
    if numbers and (proba or min_confidence is not None):
        raise OptionError(
            f"target {numbers[0]!r} is a number, and has no probabilities. Leave --proba and "
            "--min-confidence out."
        )
    several = len(model.heads) > 1
    if several and proba:
        raise OptionError("--proba shows one target, but the model has several. Leave it out.")
    embedded = model.embed(samples, on_bad_input="skip", **options)
    if embedded.failed and on_bad_input == "fail":
        raise BadInputError(sorted(embedded.failed.items()))
    places = np.cumsum(embedded.usable) - 1
    answers = {
        name: head_rows(
            head, model.results[name].kind, embedded.X, proba=proba, min_confidence=min_confidence
        )
        for name, head in model.heads.items()
    }
    classes = class_names(next(iter(model.heads.values()))) if proba else []
    middle = ["target"] if several else []
    rows: list[list[str]] = []
    for place, name in enumerate(samples.ids):
        for target, cells in answers.items():
            own = cells[places[place]] if embedded.usable[place] else [""] * (1 + len(classes))
            rows.append([name, *([target] if several else []), *own])
    for name, _ in samples.failed:
        for target in answers:
            rows.append([name, *([target] if several else []), *[""] * (1 + len(classes))])
    return PredictionTable(["id", *middle, "prediction", *classes], rows, embedded.failed)


def class_names(head: Any) -> list[str]:
    """Names of the probability columns of a head."""
    return [str(label) for label in head.classes_]


def head_rows(
    head: Any,
    kind: str,
    X: NDArray[np.float32],
    *,
    proba: bool = False,
    min_confidence: float | None = None,
) -> list[list[str]]:
    """Give the cells of each row: the prediction, and the probabilities if asked for."""
    if not len(X):
        return []
    if kind == "number":
        return [[_number(value)] for value in head.predict(X)]
    probabilities = (
        np.asarray(head.predict_proba(X)) if proba or min_confidence is not None else None
    )
    predicted = _texts(head, kind, X)
    if min_confidence is not None and probabilities is not None:
        sure = _confidence(probabilities, kind) >= min_confidence
        predicted = [text if keep else "" for text, keep in zip(predicted, sure, strict=True)]
    if not proba or probabilities is None:
        return [[text] for text in predicted]
    return [
        [text, *(f"{value:.6g}" for value in row)]
        for text, row in zip(predicted, probabilities, strict=True)
    ]


def _confidence(probabilities: NDArray[np.floating], kind: str) -> NDArray[np.floating]:
    if kind == "class":
        return np.asarray(probabilities.max(axis=1))
    return np.asarray(np.maximum(probabilities, 1 - probabilities).min(axis=1))


def _texts(head: Any, kind: str, X: NDArray[np.float32]) -> list[str]:
    if kind == "class":
        return [str(label) for label in head.predict(X)]
    names = class_names(head)
    texts = []
    for row in head.predict(X):
        chosen = (name for name, on in zip(names, row, strict=True) if on)
        texts.append("|".join(chosen) or NO_LABEL)
    return texts


def _number(value: Any) -> str:
    """Write a number so that it is read back as the same, whole ones without a point.

    Examples
    --------
    >>> _number(3.0), _number(0.1 + 0.2), _number(123456789012.5)
    ('3', '0.30000000000000004', '123456789012.5')
    """
    return repr(float(value)).removesuffix(".0")


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file, whole or not at all; no cell of it is a formula (see `guarded`).

    Raises
    ------
    InputError
        When the place cannot be written.
    """
    try:
        with (
            write_durably(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            csv.writer(file).writerows(map(guarded, row) for row in (header, *rows))
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}. Give a path in a folder that exists and can "
            "be written."
        ) from error


def heldout_table(
    model: TransferModel, store: EmbeddingStore, samples: SampleSet | None = None
) -> tuple[list[str], list[list[str]]]:
    """Give header and rows of the held-out predictions of a model.

    Columns are ``id``, ``label``, ``prediction`` and, but for a number, the probability of
    each class. Of several targets every held-out row has a line for each that it has a label
    of, its name in the column ``target``; their classes differ, so there are no probabilities.
    A model that was refitted on all rows has none that are held out.

    Parameters
    ----------
    model : TransferModel
    store : EmbeddingStore
        Ids and labels, and the layers that the model takes.
    samples : SampleSet, optional
        The inputs, where the layers in the store are those of another network.
    """
    several = len(model.heads) > 1
    first = next(iter(model.heads))
    proba = not several and model.results[first].kind != "number"
    classes = class_names(model.heads[first]) if proba else []
    header = ["id", *(["target"] if several else []), "label", "prediction", *classes]
    if model.split is None:
        return header, []
    every = model.split.rows(store.ids, "test")
    if samples is None:
        X, _ = store.matrix(list(model.layers), every)
    else:
        places = {name: place for place, name in enumerate(samples.ids)}
        X = model.embed(samples.subset([places[store.ids[row]] for row in every])).X
    lines: list[tuple[int, list[str]]] = []
    for target, head in model.heads.items():
        kind, column = model.results[target].kind, store.targets[target]
        present = Target.decide(target, column.values, kind, store.ids).present[every]
        answers = head_rows(head, kind, X[present], proba=proba)
        named = [target] if several else []
        lines += [
            (int(row), [store.ids[row], *named, _label(column.values[row]), *cells])
            for row, cells in zip(every[present], answers, strict=True)
        ]
    return header, [line for _, line in sorted(lines, key=lambda one: one[0])]


def _label(value: Any) -> str:
    return _number(value) if isinstance(value, float) else str(value)
