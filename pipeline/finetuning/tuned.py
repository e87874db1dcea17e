"""TunedBackbone: what stage 3 gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.backbones import Backbone

if TYPE_CHECKING:
    from pipeline.heads import Folded
    from pipeline.optimization import Epoch
    from pipeline.samples import Split

__all__ = ["LoggedEpoch", "TunedBackbone", "Tuning"]


@dataclass(frozen=True)
class LoggedEpoch:
    """What is known of one epoch of fine-tuning.

    Parameters
    ----------
    epoch : Epoch
        Its losses are normalised: always saying the mean costs 1.
    accuracy : float
        Of the validation rows: share of right answers, of a number the variance explained,
        the mean over several tasks.
    """

    epoch: Epoch
    accuracy: float


@dataclass(frozen=True, eq=False)
class Tuning:
    """How a backbone was tuned, and what came of it.

    Parameters
    ----------
    kept : {"tuned", "frozen"}
        Which of the two the validation rows prefer; frozen unless tuned is better by more than
        one standard error.
    heads : dict of str to Folded
        The tuned linear heads by task, of the layers as they are, calibrated. Empty where the
        frozen network is kept: the heads of the model serve on.
    validation_ids : tuple of str
        Rows that the network was not trained on, and that decided.
    frozen_loss, tuned_loss : float
        Normalised loss of these rows, the mean over the tasks.
    share : float
        Of the tuned weights in those that are kept (WiSE); the rest is frozen.
    epochs : tuple of LoggedEpoch
    best_epoch : int
    interrupted : bool
        Whether Ctrl-C ended it.
    split : Split
        The model's, with the validation rows marked.
    """

    kept: Literal["tuned", "frozen"]
    heads: dict[str, Folded]
    validation_ids: tuple[str, ...]
    frozen_loss: float
    tuned_loss: float
    share: float
    epochs: tuple[LoggedEpoch, ...]
    best_epoch: int
    interrupted: bool
    split: Split


class TunedBackbone(Backbone):
    """A backbone that remembers how it was tuned.

    Attributes
    ----------
    tuning : Tuning
    heads : dict of str to Folded
    validation_ids : tuple of str
    """

    tuning: Tuning

    @classmethod
    def of(cls, backbone: Backbone, tuning: Tuning, module: Any = None) -> TunedBackbone:
        """Take a backbone, or one of its architecture with the weights of another module."""
        own = cls.__new__(cls)
        source = backbone if module is None else backbone.with_module(module)
        own.__dict__.update(source.__dict__ | {"_engines": {}, "tuning": tuning})
        return own

    @property
    def heads(self) -> dict[str, Folded]:
        """The tuned linear heads by task."""
        return self.tuning.heads

    @property
    def validation_ids(self) -> tuple[str, ...]:
        """Rows that the network was not trained on, and that decided."""
        return self.tuning.validation_ids
