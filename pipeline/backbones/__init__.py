"""Backbones: frozen networks with named layers, wherever their weights come from.

======================  ==========================================================
`catalog`               what is known of the bundled networks without loading them
`loading`               from a name to a backbone
`survey`                from a name to its spec and layers, without building it
`bundled`, `timm_models`, `torchvision_models`, `own`   the places networks come from
`checkpoint`            weights from a local file
`network`, `stages`     a module with its taps, and which modules to tap
`graph`, `prepared`     the one embedding graph, and converted ones that are kept
`cut`, `depthwise`      the same with top blocks that can be trained, quickly
`engines`               what runs it on a device
`backbone`              `Backbone` itself
======================  ==========================================================
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.backbones.catalog import BACKBONES
from pipeline.backbones.device import native_bfloat16, resolve_device, resolve_precision
from pipeline.backbones.engines import (
    Engine,
    EngineMemoryError,
    Pending,
    agreement,
    prepared_engine,
)
from pipeline.backbones.layer import Layer, choose_layers, full_name
from pipeline.backbones.loading import list_backbones, load_backbone
from pipeline.backbones.prepared import PreparedGraph, forget_graphs
from pipeline.backbones.survey import Description, describe, forget, survey

if TYPE_CHECKING:
    from pipeline.backbones.backbone import Backbone
    from pipeline.backbones.cut import Cut
    from pipeline.backbones.graph import EmbeddingGraph, PredictingGraph

__all__ = [
    "BACKBONES",
    "Backbone",
    "Cut",
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
    "forget_graphs",
    "full_name",
    "list_backbones",
    "load_backbone",
    "native_bfloat16",
    "prepared_engine",
    "resolve_device",
    "resolve_precision",
    "survey",
]


_HOMES = {
    "Backbone": "backbone",
    "Cut": "cut",
    "EmbeddingGraph": "graph",
    "PredictingGraph": "graph",
}


def __getattr__(name: str) -> Any:
    """Load torch only when a network is used."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
