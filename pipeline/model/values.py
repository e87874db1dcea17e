"""What a model has learnt: the values that its file holds and that its predictions need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.results import TargetResults
from pipeline.samples import Split
from pipeline.spec import EmbeddingSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones import Backbone

__all__ = ["ModelValues"]


@dataclass(eq=False)
class ModelValues:
    """Backbones by spec, layers, and one fitted head a target.

    Parameters
    ----------
    specs : dict of str to EmbeddingSpec
        How each backbone's vectors are made.
    layers : dict of str to int
        Width of every layer that the heads take, in the order of their columns.
    heads : dict of str to predictor
        A fitted scikit-learn Pipeline of fuser and head for each target.
    results : dict of str to TargetResults
        What is known of each head.
    split : Split, optional
        Which rows were trained on.
    weights : dict of str to str
        Where the weights of a backbone came from, unless its name says it.
    states : dict of str to dict of arrays
        Weights that travel with the model, by backbone.
    given : dict of str to Backbone
        Networks that are at hand, and need not be built.
    """

    specs: dict[str, EmbeddingSpec]
    layers: dict[str, int]
    heads: dict[str, Any]
    results: dict[str, TargetResults] = field(repr=False)
    split: Split | None = field(default=None, repr=False)
    weights: dict[str, str] = field(default_factory=dict)
    states: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict, repr=False)
    given: dict[str, Backbone] = field(default_factory=dict, repr=False)
