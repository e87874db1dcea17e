"""Rows of fine-tuning: those that the model was trained on, some of them set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.inputs import digest_all
from pipeline.samples import SampleSet, Split, Target
from pipeline.training import refuse_sameness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.model import TransferModel

__all__ = ["TuningRows", "find_rows"]

_SET_ASIDE = 0.15


@dataclass(frozen=True, eq=False)
class TuningRows:
    """The rows that a network is tuned on, and those that judge it; no others.

    Parameters
    ----------
    samples : SampleSet
        Rows that the model was trained on and that have a label of any task.
    digests : list of bytes
        Content of each.
    train, validation : int arrays
        Positions in ``samples``.
    targets : dict of str to Target
        Labels of all of them by task.
    split : Split
        The model's, with the validation rows marked.
    """

    samples: SampleSet
    digests: list[bytes]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    targets: Mapping[str, Target]
    split: Split

    def groups(self) -> list[str] | None:
        """Give the group of every row, as the split has it."""
        if self.split.groups is None:
            return None
        known = dict(zip(self.split.digests, self.split.groups, strict=True))
        return [known[digest] for digest in self.digests]


def find_rows(model: TransferModel, samples: SampleSet) -> TuningRows:
    """Find the training rows of a model in a source, by content, and set some aside.

    A content that the model holds out is left alone even where a given split trains on a copy.

    Parameters
    ----------
    model : TransferModel
    samples : SampleSet
        What it was trained on; it may hold more.

    Raises
    ------
    InputError
        When training rows are missing, when a task has no labels, one class only or a class
        that the model does not know, or when there are too few rows to set any aside.
    """
    if model.split is None:
        raise InputError(
            "the model does not say which rows it was trained on, so none can be trusted to be "
            "unseen. Train it again: pipeline train."
        )
    targets = {name: _target(model, name, samples) for name in model.heads}
    held_out = set(model.split.test_digests)
    wanted = set(model.split.train_digests) - held_out
    digests = [digest for digest, _ in digest_all(samples.sources)]
    _refuse_missing(model, wanted - set(digests))
    labelled = np.any([target.present for target in targets.values()], axis=0)
    chosen = np.array(
        [digest in wanted and has for digest, has in zip(digests, labelled, strict=True)], bool
    )
    own = samples.subset(chosen)
    targets = {name: target.subset(chosen) for name, target in targets.items()}
    for name, target in targets.items():
        _refuse_useless(model, name, target)
    contents = [digest for digest, keep in zip(digests, chosen, strict=True) if keep and digest]
    split = model.split.with_validation(_strata(own, targets, contents), _SET_ASIDE)
    aside = {d for d, part in zip(split.digests, split.parts, strict=True) if part == "val"}
    in_validation = np.array([digest in aside for digest in contents], bool)
    rows = TuningRows(
        own,
        contents,
        np.flatnonzero(~in_validation),
        np.flatnonzero(in_validation),
        targets,
        split,
    )
    _refuse_too_few(rows)
    return rows


def _target(model: TransferModel, name: str, samples: SampleSet) -> Target:
    if name not in samples.columns:
        raise InputError(
            f"the source has no labels for the target {name!r}: it has "
            f"{', '.join(map(repr, samples.columns)) or 'no column at all'}. Give what the model "
            "was trained on, with its labels."
        )
    return Target.decide(name, samples.columns[name], model.results[name].kind, samples.ids)


def _refuse_missing(model: TransferModel, missing: set[bytes]) -> None:
    if not missing or model.split is None:
        return
    pairs = zip(model.split.ids, model.split.digests, strict=True)
    first = next(name for name, digest in pairs if digest in missing)
    raise InputError(
        f"the source lacks {len(missing)} of the {len(set(model.split.train_digests))} inputs that "
        f"the model was trained on (compared by content; the first is {first!r}). Give the source "
        "that it was trained on, or train a model on this one: pipeline train."
    )


def _refuse_useless(model: TransferModel, name: str, target: Target) -> None:
    if not target.present.any():
        raise InputError(
            f"target {name!r} has no label in any of the rows that the model was trained on. "
            "Label some, or train a model without this target."
        )
    refuse_sameness(target, "every row that the model was trained on")
    if target.kind == "number":
        return
    known = {str(label) for label in model.heads[name].classes_}
    strange = {str(label): n for label, n in target.counts.items() if n and str(label) not in known}
    if strange:
        label, count = next(iter(strange.items()))
        raise InputError(
            f"target {name!r} has the class {label!r} in {count} of these rows, which the model "
            f"does not know: it knows {', '.join(sorted(known))}. Mend the label, or train the "
            "model again first: pipeline train."
        )


def _strata(
    samples: SampleSet, targets: Mapping[str, Target], digests: Sequence[bytes]
) -> dict[bytes, int]:
    """Give each content its class of the first task that has classes.

    One content of every class of the other tasks has none: it is needed to train on.
    """
    tasks = [target for target in targets.values() if target.kind == "class"]
    codes = tasks[0].encode().tolist() if tasks else [0] * len(samples)
    strata = dict(zip(digests, codes, strict=True))
    for target in tasks[1:]:
        labelled = zip(digests, target.values, strict=True)
        pairs = sorted((digest, label) for digest, label in labelled if label is not None)
        for digest in {label: digest for digest, label in reversed(pairs)}.values():
            strata.pop(digest, None)
    return strata


def _refuse_too_few(rows: TuningRows) -> None:
    for name, target in rows.targets.items():
        for what, own in (("train on", rows.train), ("judge by", rows.validation)):
            if not target.present[own].any():
                raise InputError(
                    f"of the {len(rows.samples)} rows none with a label for {name!r} is left to "
                    f"{what}: 15 % are set aside, rows of one group or of equal content together. "
                    "Fine-tuning needs more rows, or smaller groups: keep the frozen model."
                )
        if target.kind == "class":
            _refuse_unseen(target, rows)


def _refuse_unseen(target: Target, rows: TuningRows) -> None:
    seen, judged = (target.subset(own).counts for own in (rows.train, rows.validation))
    unseen = [label for label, count in judged.items() if count and not seen[label]]
    if unseen:
        raise InputError(
            f"target {target.name!r} has the class {str(unseen[0])!r} only in rows that are set "
            "aside to judge by, so the network would never see it. Label more rows of it, or say "
            "in a column 'split' which rows are train, val and test, and train the model again: "
            "pipeline train."
        )
