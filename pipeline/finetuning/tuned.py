"""TunedBackbone: what stage 3 gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.backbones import Backbone, forget_graphs
from pipeline.finetuning.log import LoggedEpoch, draw_log, write_log

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.finetuning.traces import Traces
    from pipeline.heads import Folded
    from pipeline.samples import Split

__all__ = ["TunedBackbone", "Tuning"]


@dataclass(frozen=True, eq=False)
class Tuning:
    """How a backbone was tuned, and what came of it.

    Parameters
    ----------
    kept : {"tuned", "frozen"}
        Which of the two the validation rows prefer, both as they would serve; frozen unless tuned
        is better by more than chance (paired t-test).
    candidate : Backbone
        The tuned network, whether it is kept or not.
    candidate_heads : dict of str to Folded
        By task, of the layers as they are: the tuned linear heads with their temperature.
    frozen_outputs, tuned_outputs : dict of str to float64 array of shape (n_validation, n_outputs)
        By task, what is predicted for the validation rows: by the model that came in, its head
        fitted anew without the part of them to which a row belongs, and by the candidate.
    validation_ids : tuple of str
        Rows that the network was not trained on, and that decided.
    n_train : dict of str to int
        Rows with a label that it was trained on, by task.
    frozen_loss, tuned_loss : float
        Normalised loss of the validation rows, the mean over the tasks.
    figures : dict of str to dict
        Of the candidate on the validation rows, by task: ``accuracy``, ``log_loss``,
        ``log_loss_se``, or ``r2``, ``mse``, ``mse_se``.
    share : float
        Of the tuned weights in the candidate (WiSE); the rest is frozen.
    epochs : tuple of LoggedEpoch
    best_epoch : int
    interrupted : bool
        Whether Ctrl-C ended it.
    split : Split
        The model's, with the validation rows marked.
    traces : Traces
        Its files.
    """

    kept: Literal["tuned", "frozen"]
    candidate: Backbone
    candidate_heads: dict[str, Folded]
    frozen_outputs: dict[str, NDArray[np.float64]]
    tuned_outputs: dict[str, NDArray[np.float64]]
    validation_ids: tuple[str, ...]
    n_train: dict[str, int]
    frozen_loss: float
    tuned_loss: float
    figures: dict[str, dict[str, float | None]]
    share: float
    epochs: tuple[LoggedEpoch, ...]
    best_epoch: int
    interrupted: bool
    split: Split
    traces: Traces

    def finish(self) -> None:
        """Write the log, and remove what only a tuning under way needs; one may go on yet."""
        if not self.interrupted:
            self.traces.remove()
            if self.kept == "frozen" and self.best_epoch:  # else it is the frozen network itself
                forget_graphs(self.candidate.weights_digest)
        if self.traces.kept:
            write_log(self.epochs, self.traces.log)
            draw_log(
                self.epochs, self.traces.picture, kept=self.kept,
                frozen_loss=self.frozen_loss, best_epoch=self.best_epoch,
            )  # fmt: skip


class TunedBackbone(Backbone):
    """What stage 3 gives: the tuned network, or the frozen one where it serves as well.

    Attributes
    ----------
    tuning : Tuning
    heads : dict of str to Folded
        The tuned linear heads by task; empty where the frozen network is kept, for the heads
        of the model serve on.
    validation_ids : tuple of str
        Rows that the network was not trained on.
    """

    tuning: Tuning

    @classmethod
    def of(cls, frozen: Backbone, tuning: Tuning) -> TunedBackbone:
        """Take the network that is kept."""
        own = cls.__new__(cls)
        kept = tuning.candidate if tuning.kept == "tuned" else frozen
        own.__dict__.update(kept.__dict__ | {"_engines": {}, "tuning": tuning})
        return own

    @property
    def heads(self) -> dict[str, Folded]:
        """The tuned linear heads by task."""
        return self.tuning.candidate_heads if self.tuning.kept == "tuned" else {}

    @property
    def validation_ids(self) -> tuple[str, ...]:
        """Rows that the network was not trained on, and that decided."""
        return self.tuning.validation_ids
