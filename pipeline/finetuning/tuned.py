"""TunedBackbone: what stage 3 gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.backbones.backbone import Backbone

if TYPE_CHECKING:
    from pipeline.heads import Folded
    from pipeline.optimization import Epoch
    from pipeline.samples import Split

__all__ = ["LoggedEpoch", "TunedBackbone"]
