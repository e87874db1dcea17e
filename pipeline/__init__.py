"""Transfer learning for a folder of data, a few labels and no time.

The house, from the doors down to the ground; imports go strictly downward::

    doors        cli, estimators       the command line; the scikit-learn estimators
    the order    flow                  run(): the stages one after the other
    stages       embedding             1: inputs -> cached embeddings of many layers
                 training              2: cached layers and labels -> model
                 finetuning            3: a model -> its network with tuned top blocks
    model        model                 what predicts, and its file
    extraction   extraction            the one loop from inputs to embeddings
    assemblies   backbones, heads      frozen networks; what predicts one target
    parts        inputs, pooling, fusion, optimization, cache
    values       samples, spec, config, results
    ground       errors, digest, durable, progress

>>> from pipeline import TransferClassifier
>>> clf = TransferClassifier()
>>> clf.fit(paths, labels).predict(new_paths)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.version import __version__

if TYPE_CHECKING:
    from pipeline.backbones import load_backbone
    from pipeline.cache import EmbeddingStore
    from pipeline.embedding import embed
    from pipeline.estimators import (
        LayerEmbedder,
        MultiTaskTransfer,
        TransferClassifier,
        TransferRegressor,
    )
    from pipeline.finetuning import finetune
    from pipeline.flow import run, tune
    from pipeline.model import TransferModel
    from pipeline.samples import SampleSet
    from pipeline.training import train

_HOMES = {
    "EmbeddingStore": "pipeline.cache",
    "LayerEmbedder": "pipeline.estimators",
    "MultiTaskTransfer": "pipeline.estimators",
    "SampleSet": "pipeline.samples",
    "TransferClassifier": "pipeline.estimators",
    "TransferModel": "pipeline.model",
    "TransferRegressor": "pipeline.estimators",
    "embed": "pipeline.embedding",
    "finetune": "pipeline.finetuning",
    "load_backbone": "pipeline.backbones",
    "run": "pipeline.flow",
    "train": "pipeline.training",
    "tune": "pipeline.flow",
}

__all__ = [
    "EmbeddingStore",
    "LayerEmbedder",
    "MultiTaskTransfer",
    "SampleSet",
    "TransferClassifier",
    "TransferModel",
    "TransferRegressor",
    "__version__",
    "embed",
    "finetune",
    "load_backbone",
    "run",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: ``import pipeline`` itself loads nothing heavy."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
