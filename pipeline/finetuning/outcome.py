"""Outcome: the model that a tuning makes, and its figures beside those of the frozen one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.finetuning.tuned import TunedBackbone, Tuning
from pipeline.heads import Folded
from pipeline.inputs import digest_all
from pipeline.model import MODULE, TransferModel
from pipeline.results import Candidate, TargetResults
from pipeline.samples import SampleSet, Target
from pipeline.training import evaluate, no_figures

__all__ = ["Outcome", "compared"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a tuning came to.

    Parameters
    ----------
    model : TransferModel
        The tuned one, or the one that came in, unchanged.
    backbone : TunedBackbone
    rows : {"test", "validation"}
        Which rows the figures are of: those that the model holds out, else those that were set
        aside (by frozen heads that have not seen them either).
    frozen, tuned : dict of str to TargetResults
        By target.
    """

    model: TransferModel
    backbone: TunedBackbone
    rows: Literal["test", "validation"]
    frozen: Mapping[str, TargetResults]
    tuned: Mapping[str, TargetResults]

    @property
    def kept(self) -> Mapping[str, TargetResults]:
        """Figures of what was kept."""
        return self.tuned if self.backbone.tuning.kept == "tuned" else self.frozen

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Give the JSON of ``finetune``."""
        sides = {"targets": self.kept, "frozen": self.frozen, "tuned": self.tuned}
        shown = {side: {n: own.to_json() for n, own in by.items()} for side, by in sides.items()}
        return {
            "targets": shown["targets"],
            "kept": self.backbone.tuning.kept,
            "rows": self.rows,
            "frozen": shown["frozen"],
            "tuned": shown["tuned"],
            "seconds": round(seconds, 3),
        }


def compared(
    model: TransferModel, samples: SampleSet, backbone: TunedBackbone, **options: Any
) -> Outcome:
    """Make the tuned model, and measure both where neither has learnt weights.

    Without held-out rows these are the validation rows, which chose the epoch, the share of
    the tuned weights and the temperature: there the figures flatter the tuned network.

    Parameters
    ----------
    model : TransferModel
        That was tuned.
    samples : SampleSet
        What it was tuned on; with its held-out rows, if it has any.
    backbone : TunedBackbone
    **options
        ``device``, ``progress``.
    """
    tuning = backbone.tuning
    tested = _held_out(model, samples, backbone)
    tuned = _with_heads(model, tuning.candidate_heads, backbone)
    kept = tuned if tuning.kept == "tuned" else model
    if not tested.any():
        aside = set(tuning.validation_ids)
        own = samples.subset(np.array([name in aside for name in samples.ids], bool))
        frozen = _with_heads(model, tuning.frozen_heads)
        return Outcome(kept, backbone, "validation", *_measured((frozen, tuned), own, options))
    before, after = _measured((model, tuned), samples.subset(tested), options)
    tuned.results = dict(after)
    return Outcome(kept, backbone, "test", before, after)


def _measured(
    models: Sequence[TransferModel], samples: SampleSet, options: Mapping[str, Any]
) -> list[Mapping[str, TargetResults]]:
    return [evaluate(m, samples, include_training=True, **options).results for m in models]


def _held_out(
    model: TransferModel, samples: SampleSet, backbone: TunedBackbone
) -> NDArray[np.bool_]:
    """Find the rows that the model holds out and that have a label."""
    held_out = set(backbone.tuning.split.test_digests)
    digests = (digest for digest, _ in digest_all(samples.sources))
    found = np.array([digest in held_out for digest in digests], bool)
    labelled = [
        Target.decide(name, samples.columns[name], model.results[name].kind, samples.ids).present
        for name in model.heads
    ]
    return np.asarray(found & np.any(labelled, axis=0))


def _with_heads(
    model: TransferModel, heads: Mapping[str, Folded], backbone: TunedBackbone | None = None
) -> TransferModel:
    """Give a model of the same layers with linear heads, and a network of other weights."""
    from sklearn.pipeline import Pipeline

    own = copy.copy(model)
    own.heads = {name: Pipeline([("head", head.estimator())]) for name, head in heads.items()}
    if backbone is None:
        return own
    tuning = backbone.tuning
    ((name, spec),) = model.specs.items()
    candidate = tuning.candidate
    own.__dict__.pop("backbones", None)  # built for the frozen weights
    own.specs = {name: replace(spec, weights_digest=candidate.weights_digest)}
    own.weights = {name: MODULE} if model.weights.get(name) == MODULE else {}
    own.states, own.given = {name: candidate.state()}, {name: candidate}
    own.split = tuning.split
    own.results = {target: _results(model, target, tuning) for target in heads}
    return own


def _results(model: TransferModel, target: str, tuning: Tuning) -> TargetResults:
    """Say how the head of a target was found; its held-out figures come later."""
    kind, layers = model.results[target].kind, tuple(model.layers)
    found = Candidate("concat", "linear", layers, "validation", tuning.figures[target])
    return TargetResults(
        kind=kind,
        figures=no_figures(kind),
        n_train=tuning.n_train[target],
        n_test=0,
        layers=layers,
        fusion=found.fusion,
        head=found.head,
        fusions=(found,),
    )
