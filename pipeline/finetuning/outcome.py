"""Outcome: the model that a tuning makes, and its figures beside those of the frozen one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.finetuning.tuned import TunedBackbone, Tuning
from pipeline.inputs import digest_all
from pipeline.model import MODULE, TransferModel
from pipeline.results import Candidate, TargetResults
from pipeline.samples import SampleSet, Target
from pipeline.training import evaluate, measure_outputs, no_figures

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
        aside (frozen: by heads that have not seen them either, though most of the others).
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
    tuned = _tuned(model, backbone)
    kept = tuned if tuning.kept == "tuned" else model
    if not tested.any():
        sides = (model, tuning.frozen_outputs), (tuned, tuning.tuned_outputs)
        before, after = (_on_validation(own, samples, backbone, said) for own, said in sides)
        return Outcome(kept, backbone, "validation", before, after)
    frozen, new = (
        evaluate(one, samples.subset(tested), include_training=True, **options).results
        for one in (model, tuned)
    )
    tuned.results = dict(new)
    return Outcome(kept, backbone, "test", frozen, new)


def _on_validation(
    model: TransferModel,
    samples: SampleSet,
    backbone: TunedBackbone,
    outputs: Mapping[str, NDArray[np.float64]],
) -> dict[str, TargetResults]:
    """Measure what was predicted for the validation rows."""
    places = {name: row for row, name in enumerate(samples.ids)}
    own = samples.subset(np.array([places[i] for i in backbone.tuning.validation_ids]))
    results = {}
    for name, said in outputs.items():
        found = model.results[name]
        truth = Target.decide(name, own.columns[name], found.kind, own.ids)
        classes = backbone.tuning.candidate_heads[name].classes
        figures = measure_outputs(truth.subset(truth.present), classes, said[truth.present])
        results[name] = replace(found, figures=figures, n_test=int(truth.present.sum()))
    return results


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


def _tuned(model: TransferModel, backbone: TunedBackbone) -> TransferModel:
    """Give a model of the same layers by the tuned network, with its heads."""
    from sklearn.pipeline import Pipeline

    own, tuning = copy.copy(model), backbone.tuning
    heads = tuning.candidate_heads
    own.heads = {name: Pipeline([("head", head.estimator())]) for name, head in heads.items()}
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
