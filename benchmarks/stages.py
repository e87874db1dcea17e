"""Stages: a sample set through all of them, timed; what was kept, measured on test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from findings import timed
from sklearn.metrics import r2_score

from pipeline import EmbeddingStore, SampleSet, TransferModel, embed, finetune, train
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.finetuning import TunedBackbone

Outputs = dict[str, tuple[Any, np.ndarray]]
"""Classes (None for a number) and probabilities (or numbers) by target."""
Figures = dict[str, dict[str, float]]
"""By target: accuracy and log-loss, or R2 of a number."""


@dataclass(frozen=True)
class Frozen:
    """A model that was trained on some samples, and what that took.

    Parameters
    ----------
    samples : SampleSet
        All of them were trained on.
    model : TransferModel
    seconds : dict of str to float
        Of stage 1 (``embed``) and stage 2 (``train``).
    """

    samples: SampleSet
    model: TransferModel
    seconds: Mapping[str, float]

    @classmethod
    def of(
        cls, samples: SampleSet, backbone: Any, cache: Path, options: EmbedOptions,
        fusion: str = "auto", head: str = "auto", target: str = "label",
    ) -> Frozen:  # fmt: skip
        """Embed the samples anew and train on all of them."""
        cache.unlink(missing_ok=True)
        store, embedding = timed(lambda: embed(samples, backbone, cache, options=options))
        chosen = TrainOptions(target=target, fusion=fusion, head=head, test_fraction=0)
        model, training = timed(lambda: train(store, chosen))
        store.close()
        return cls(samples, model, {"embed": embedding, "train": training})

    def tuned(self, **options: Any) -> tuple[TunedBackbone, float]:
        """Fine-tune, and say how long that took."""
        return timed(lambda: finetune(self.model, self.samples, **options))


def frozen_outputs(model: TransferModel, store: EmbeddingStore) -> Outputs:
    """Ask the heads of a frozen model about the rows of a cache."""
    X = model.embed(store).X
    return {
        name: (None, head.predict(X)) if model.results[name].kind == "number"
        else (head.classes_, head.predict_proba(X))
        for name, head in model.heads.items()
    }  # fmt: skip


def measured(
    model: TransferModel, tuned: TunedBackbone, test: SampleSet, frozen: EmbeddingStore, cache: Path
) -> dict[str, Figures]:
    """Measure the frozen model, the tuned network and what was kept of the two on other rows.

    Parameters
    ----------
    model : TransferModel
    tuned : TunedBackbone
    test : SampleSet
    frozen : EmbeddingStore
        The same rows by the frozen network.
    cache : Path
        Made, and removed again.
    """
    tuning = tuned.tuning
    cache.unlink(missing_ok=True)
    with embed(test, tuning.candidate, cache, options=EmbedOptions(precision="float32")) as store:
        assert store.ids == frozen.ids
        X = store.matrix(list(model.layers))[0]
    cache.unlink()
    heads = tuning.candidate_heads.items()
    found = {
        "frozen": figures(frozen_outputs(model, frozen), frozen),
        "tuned": figures({name: (head.classes, head.outputs(X)) for name, head in heads}, frozen),
    }
    return found | {"kept": found[tuning.kept]}


def figures(outputs: Outputs, store: EmbeddingStore) -> Figures:
    """Measure outputs by the labels of the cache."""
    found = {}
    for name, (classes, values) in outputs.items():
        target = store.targets[name]
        truth = np.asarray(target.values)
        if classes is None:
            found[name] = {"r2": float(r2_score(truth.astype(float), np.ravel(values)))}
            continue
        right = np.asarray(classes).astype(str)[None] == truth.astype(str)[:, None]
        said = np.take_along_axis(right, values.argmax(axis=1)[:, None], axis=1)
        losses = -np.log(np.maximum(values[right], 1e-12))
        found[name] = {"accuracy": float(said.mean()), "log_loss": float(losses.mean())}
    return found
