"""Fusion: the cached layers of a row become one vector.

======================  ==========================================================
`slices`                which columns of ``X`` are which layer
`fuser`                 `LayerFuser`: what all fusers share, scaling first
`concat`, `single`      layers side by side, or one of them
`average`               layers added up in one space, with weights or without
`learning`              weights learned from labels
`scaling`               what every column is multiplied by, so that layers have an equal say
`alignment`             layers of different widths brought into one space
`catalog`               `FUSERS` and `make_fuser`: from a name to a fuser
======================  ==========================================================

A fuser is a scikit-learn transformer on one 2-D ``X``; its parameter ``layer_slices`` says
where the layers lie.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.fusion.alignment import orthonormal_maps
from pipeline.fusion.catalog import FUSERS, make_fuser
from pipeline.fusion.learning import learn_weights
from pipeline.fusion.scaling import ColumnScaling, column_factors
from pipeline.fusion.slices import find_layer, resolve_slices, slices_of

if TYPE_CHECKING:
    from pipeline.fusion.average import AverageFusion, WeightedFusion
    from pipeline.fusion.concat import ConcatFusion
    from pipeline.fusion.single import SingleLayer

__all__ = [
    "FUSERS",
    "AverageFusion",
    "ColumnScaling",
    "ConcatFusion",
    "SingleLayer",
    "WeightedFusion",
    "column_factors",
    "find_layer",
    "learn_weights",
    "make_fuser",
    "orthonormal_maps",
    "resolve_slices",
    "slices_of",
]

_HOMES = {
    "AverageFusion": "average",
    "ConcatFusion": "concat",
    "SingleLayer": "single",
    "WeightedFusion": "average",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"pipeline.fusion.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
