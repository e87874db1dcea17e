"""Fusions as linear maps, each scored on rows left out: from the same moments, without refits.

======================  ==========================================================
``last``                the last layer
``single:LAYER``        another layer alone
``forward``             layers added one by one, the one that helps most first
``average``             scaled layers added up in one space
``weighted``            the same, with softmax weights learned from the labels
``concat``              scaled layers side by side
``evidence``            the same, each layer with the penalty under which the labels are likeliest
``late``                a ridge a layer, their left-out scores stacked
``selection``           the columns that weigh most in ``concat`` (Evci et al., 2022, Head2Toe)
======================  ==========================================================
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from pipeline.fusion import find_layer, learn_weights, orthonormal_maps
from pipeline.heads.judging import ClassJudge, Judge, Verdict
from pipeline.heads.layer_scaling import layer_factors, layer_penalties, penalised
from pipeline.heads.linear_map import LinearMap
from pipeline.heads.selection import selected
from pipeline.heads.solving import Fit, gcv, solved
from pipeline.heads.stacking import stack_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.ridge_rows import RidgeRows

__all__ = ["FUSIONS", "Fused", "FusionTrials"]

FUSIONS = (
    "last", "single", "concat", "average", "weighted", "evidence", "late", "forward", "selection",
)  # fmt: skip
"""The simplest first, that is the one that asks the labels for least: nothing, one layer, a
number a layer, a set of layers, a set of columns."""

_ROWS_TO_LEARN_FROM = 1000


@dataclass(frozen=True, eq=False)
class Fused:
    """A fusion and what it is worth.

    Parameters
    ----------
    fusion : str
    layers : tuple of str
        Layers that it looks at, bottom to top.
    ridges : sequence of (float, LinearMap, float)
        What the scores of each ridge are multiplied by, its map and its strength.
    offset : array of shape (n_outputs,)
        Added to the sum of the scores.
    scores : array of shape (n_looked_at, n_outputs)
        Of rows left out.
    verdict : Verdict
    by : {"loo", "cv"}
    penalties : dict of str to float
        Relative penalty of each layer, where they differ.
    seconds : float
    """

    fusion: str
    layers: tuple[str, ...]
    ridges: Sequence[tuple[float, LinearMap, float]]
    offset: NDArray[np.float64]
    scores: NDArray[np.floating]
    verdict: Verdict
    by: str = "loo"
    penalties: Mapping[str, float] | None = None
    seconds: float = 0.0

    def fit(self, rows: RidgeRows, judge: Judge, layers: Sequence[str]) -> Fit:
        """Solve again, for the strengths found, what was let go to save memory."""
        members = [
            (share, solved(rows, fusion, judge, [alpha])) for share, fusion, alpha in self.ridges
        ]
        strengths = dict.fromkeys(layers, np.inf)
        alphas = [alpha for _, _, alpha in self.ridges]
        every = alphas if len(alphas) > 1 else alphas * len(self.layers)
        for name, alpha in zip(self.layers, every, strict=True):
            strengths[name] = alpha * (self.penalties or {}).get(name, 1.0)
        return Fit(members, self.offset, self.scores, self.verdict, strengths)


class FusionTrials:
    """Tries fusions of some layers on the same rows.

    Parameters
    ----------
    rows : RidgeRows
    layers : dict of str to (int, int)
        Start and stop column of each layer, bottom to top.
    judge : Judge
        Of the rows that are looked at.
    scaling : str
    random_state : int
    """

    def __init__(
        self,
        rows: RidgeRows,
        layers: Mapping[str, tuple[int, int]],
        judge: Judge,
        *,
        scaling: str,
        random_state: int,
    ) -> None:
        self.rows, self.layers, self.judge = rows, dict(layers), judge
        self.random_state = random_state
        self.factors = layer_factors(rows, layers, scaling)
        self._alone: dict[str, Fused] = {}

    def attempt(self, fusion: str) -> Fused:
        """Try one fusion, and take its time."""
        began = time.perf_counter()
        kind, _, layer = fusion.partition(":")
        if kind in ("last", "single"):
            name = find_layer(layer, self.layers) if layer else list(self.layers)[-1]
            found = replace(self.alone(name), fusion=fusion)
        else:
            found = getattr(self, f"_{kind}")()
        return replace(found, seconds=time.perf_counter() - began + found.seconds)

    def names(self) -> list[str]:
        """Every fusion that these layers allow; on one layer all are the same."""
        *lower, _ = self.layers
        if not lower:
            return ["last"]
        return ["last", *(f"single:{name}" for name in lower), *FUSIONS[2:]]

    def alone(self, layer: str) -> Fused:
        """Try one layer; once."""
        if layer not in self._alone:
            began = time.perf_counter()
            own = replace(self.beside([layer]), name=layer)
            found = self._ridge(f"single:{layer}", (layer,), own)
            self._alone[layer] = replace(found, seconds=time.perf_counter() - began)
            return self._alone[layer]
        return replace(self._alone[layer], seconds=0.0)

    def beside(self, layers: Sequence[str]) -> LinearMap:
        """Put some scaled layers side by side."""
        spans = [np.arange(*self.layers[layer]) for layer in layers]
        columns = np.concatenate(spans)
        if (np.diff(columns) == 1).all():
            return LinearMap(slice(columns[0], columns[-1] + 1), self.factors[columns])
        return LinearMap(columns, self.factors[columns])

    def _ridge(self, fusion: str, layers: Sequence[str], own: LinearMap) -> Fused:
        found = solved(self.rows, own, self.judge)
        nothing = np.zeros(found.scores.shape[1])
        ridges = [(1.0, own, found.alpha)]
        return Fused(fusion, tuple(layers), ridges, nothing, found.scores, found.verdict)

    @cached_property
    def _side_by_side(self) -> Fused:
        own = replace(self.beside(list(self.layers)), name="concat")
        return self._ridge("concat", list(self.layers), own)

    def _concat(self) -> Fused:
        return self._side_by_side

    def _forward(self) -> Fused:
        """Add the layer that lowers generalised cross-validation most, while any lowers it."""
        best = min((self.alone(name) for name in self.layers), key=lambda one: one.verdict.loss)
        ((_, fusion, alpha),) = best.ridges
        chosen, loss = best.layers, gcv(self.rows, fusion, alpha)
        while len(chosen) < len(self.layers):
            wider = [
                tuple(name for name in self.layers if name in (*chosen, more))
                for more in self.layers
                if more not in chosen
            ]
            losses = [gcv(self.rows, self.beside(names), alpha) for names in wider]
            if min(losses) >= loss:
                break
            chosen, loss = wider[int(np.argmin(losses))], min(losses)
        if len(chosen) == len(self.layers):
            grown = self._side_by_side
        else:
            grown = self._ridge("forward", chosen, self.beside(chosen))
        kept = grown if grown.verdict.loss < best.verdict.loss else best
        return replace(kept, fusion="forward", seconds=0.0)

    def _average(self) -> Fused:
        return self._mixed("average", np.full(len(self.layers), 1 / len(self.layers)))

    def _weighted(self) -> Fused:
        rows = self.rows
        seed = np.random.default_rng(self.random_state)
        some = np.sort(seed.permutation(len(rows.X))[:_ROWS_TO_LEARN_FROM])
        X = rows.X[some] - rows.x_mean
        aligned = [
            (X[:, slice(*self.layers[name])] * self.factors[slice(*self.layers[name])]) @ way
            for name, way in self._ways.items()
        ]
        return self._mixed("weighted", learn_weights(aligned, rows.Y[some] - rows.Y[some].mean(0)))

    @cached_property
    def _ways(self) -> dict[str, NDArray[np.floating]]:
        """Matrix of each layer into the space that layers are added up in."""
        widths = {name: stop - start for name, (start, stop) in self.layers.items()}
        drawn = orthonormal_maps(widths, check_random_state(self.random_state))
        return {name: drawn.get(name, np.eye(width)) for name, width in widths.items()}

    def _mixed(self, fusion: str, weights: NDArray[np.float64]) -> Fused:
        columns = np.concatenate([np.arange(*span) for span in self.layers.values()])
        mix = np.concatenate(
            [weight * way for weight, way in zip(weights, self._ways.values(), strict=True)]
        )
        name = "average" if fusion == "average" else None
        own = LinearMap(columns, self.factors[columns], mix, name)
        return self._ridge(fusion, list(self.layers), own)

    def _evidence(self) -> Fused:
        every = LinearMap(slice(None), self.factors)
        found = layer_penalties(self.rows, every, self.layers, "evidence")
        own = self._ridge("evidence", list(self.layers), penalised(every, self.layers, found))
        return replace(own, penalties=dict(zip(self.layers, found.tolist(), strict=True)))

    def _late(self) -> Fused:
        """Add up the scores of every layer's own ridge, each with a weight that is not negative."""
        alone = [self.alone(name) for name in self.layers]
        judge, centre = self.judge, np.zeros(len(self.rows.y_mean))
        if not isinstance(judge, ClassJudge):
            centre = self.rows.y_mean
            judge = replace(judge, truth=judge.truth - centre)
        weights = stack_weights([one.scores - centre for one in alone], judge)
        kept = [(weight, one) for weight, one in zip(weights, alone, strict=True) if weight > 0]
        kept = kept or [(1.0, alone[-1])]
        offset = centre * (1 - sum(weight for weight, _ in kept))
        scores = offset + sum(weight * one.scores for weight, one in kept)
        ridges = [(weight, one.ridges[0][1], one.ridges[0][2]) for weight, one in kept]
        layers = tuple(one.layers[0] for _, one in kept)
        verdict = self.judge.verdict(scores)
        return Fused("late", layers, ridges, offset, scores, verdict)

    def _selection(self) -> Fused:
        every = self._side_by_side
        ((_, fusion, alpha),) = every.ridges
        columns, scores = selected(self.rows, fusion, alpha, self.judge, self.random_state)
        own = self._ridge("selection", (), LinearMap(columns, self.factors[columns]))
        verdict = self.judge.verdict(scores)
        return replace(own, layers=tuple(self.layers), scores=scores, verdict=verdict, by="cv")
