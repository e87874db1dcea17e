"""Backbones: frozen networks with named layers, wherever their weights come from.

======================  ==========================================================
`catalog`               what is known of the bundled networks without loading them
`loading`               from a name to a backbone
`survey`                from a name to its spec and layers, without building it
`bundled`, `timm_models`, `torchvision_models`, `own`   the places networks come from
`checkpoint`            weights from a local file
`network`, `stages`     a module with its taps, and which modules to tap
`graph`, `prepared`     the one embedding graph, and converted ones that are kept
`engines`               what runs it on a device
`backbone`              `Backbone` itself
======================  ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.backbones.catalog import BACKBONES
from pipeline.backbones.device import resolve_device, resolve_precision
from pipeline.backbones.engines import (
    Engine,
    EngineMemoryError,
    Pending,
    agreement,
    prepared_engine,
)
from pipeline.backbones.layer import Layer, choose_layers, full_name
from pipeline.backbones.loading import list_backbones, load_backbone
from pipeline.backbones.prepared import PreparedGraph
from pipeline.backbones.survey import Description, describe, forget, survey

if TYPE_CHECKING:
    from pipeline.backbones.backbone import Backbone
    from pipeline.backbones.graph import EmbeddingGraph, PredictingGraph

__all__ = [
    "BACKBONES",
    "Backbone",
    "Description",
    "EmbeddingGraph",
    "Engine",
    "EngineMemoryError",
    "Layer",
    "Pending",
    "PredictingGraph",
    "PreparedGraph",
    "agreement",
    "choose_layers",
    "describe",
    "forget",
    "full_name",
    "list_backbones",
    "load_backbone",
    "prepared_engine",
    "resolve_device",
    "resolve_precision",
    "survey",
]


def __getattr__(name: str) -> Any:
    if name == "Backbone":
        from pipeline.backbones.backbone import Backbone

        return Backbone
    if name in ("EmbeddingGraph", "PredictingGraph"):
        from pipeline.backbones import graph

        return getattr(graph, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
