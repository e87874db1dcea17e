"""Optimization: the one training loop, read top to bottom.

Small torch heads use it, and the fine-tuning of a network.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import OptionError

if TYPE_CHECKING:
    import torch
    from torch import nn

    Batches = Callable[[int], Iterable[tuple[torch.Tensor, ...]]]
    Loss = Callable[..., torch.Tensor]

__all__ = ["Epoch", "Group", "Optimized", "optimize"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Group:
    """Parameters that are trained alike.

    Parameters
    ----------
    parameters : sequence of nn.Parameter
    lr : float
        Peak of their schedule.
    weight_decay : float
        Towards zero, decoupled from the gradient as AdamW has it.
    pull : float
        The same towards the values they start with (L2-SP: Li, Grandvalet and Davoine, 2018,
        arXiv 1802.01483).
    first_epoch : int
        They are left as they are before this one.
    """

    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float = 0.0
    pull: float = 0.0
    first_epoch: int = 1


@dataclass(frozen=True)
class Epoch:
    """What is known of one epoch.

    Parameters
    ----------
    number : int
        From 1.
    loss, validation_loss : float
        Mean over the batches as they were trained on; after the epoch, on the other rows.
    lr : float
        Rate of the first group after its last step.
    seconds : float
    """

    number: int
    loss: float
    validation_loss: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class Optimized:
    """What a training came to.

    Parameters
    ----------
    log : tuple of Epoch
        Epochs that ran.
    best_epoch : int
        The one whose weights the module has now; 0: those it started with.
    interrupted : bool
        Whether it was stopped by hand.
    diverged : bool
        Whether it was given up.
    """

    log: tuple[Epoch, ...]
    best_epoch: int
    interrupted: bool = False
    diverged: bool = False

    @property
    def epochs(self) -> int:
        """How many ran."""
        return len(self.log)

    @property
    def losses(self) -> tuple[float, ...]:
        """Validation loss after each epoch."""
        return tuple(epoch.validation_loss for epoch in self.log)


def optimize(
    module: nn.Module,
    batches: Batches,
    loss: Loss,
    validate: Callable[[], float],
    groups: Sequence[Group],
    *,
    steps_per_epoch: int,
    max_epochs: int,
    patience: int = 10,
    warm_up: float = 0.3,
    clip: float = 1.0,
    average: float = 0.0,
    bfloat16: bool = False,
    stoppable: bool = False,
    state: Mapping[str, Any] | None = None,
    worst: float | None = None,
    on_epoch: Callable[[Epoch, Callable[[], dict[str, Any]]], None] | None = None,
) -> Optimized:
    """Train a module with AdamW under a one-cycle schedule, and keep its best weights.

    Loshchilov and Hutter (2019), arXiv 1711.05101; Smith and Topin (2018), arXiv 1708.07120.

    Parameters
    ----------
    module : nn.Module
        Trained in place; on a CUDA device in bfloat16 autocast.
    batches : callable
        Gives the batches of an epoch, by its number, already on the module's device.
    loss : callable
        ``loss(module, *batch)``. It adds up over the rows of a batch, so that a batch for which
        memory runs out can go through in pieces.
    validate : callable
        Loss on rows that are not trained on; called after each epoch, in eval mode.
    groups : sequence of Group
        What is trained.
    steps_per_epoch, max_epochs : int
    patience : int
        Epochs without a better validation loss before it ends.
    warm_up : float
        Share of all steps in which the rates rise to their peak.
    clip : float
        Largest norm of the gradient.
    average : float
        Validate, and keep, a moving average of the weights that keeps this share of itself at
        each step; 0 takes the weights as they are.
    bfloat16 : bool
        Autocast on other devices than CUDA, too.
    stoppable : bool
        Whether Ctrl-C ends the training and keeps the best weights so far.
    state : mapping, optional
        Goes on from what ``on_epoch`` was given.
    worst : float, optional
        The training is given up where the mean loss of an epoch is greater, or no number.
    on_epoch : callable, optional
        Called after each epoch with what is known of it, and with what gives its state.

    Raises
    ------
    OptionError
        When the loss is no finite number any more.
    """
    steps = steps_per_epoch * max_epochs
    run = _Run(module, groups, steps, warm_up, clip, average, bfloat16)
    if state is not None:
        run.restore(state)
    interrupted = diverged = False
    try:
        for number in range(len(run.log) + 1, max_epochs + 1):
            if run.log and run.log[-1].number - run.best_epoch >= patience:
                break
            began = time.perf_counter()
            run.thaw(number)
            module.train()
            losses = [run.step(loss, batch) for batch in batches(number)]
            mean = sum(losses) / max(len(losses), 1)
            diverged = worst is not None and not mean <= worst
            if diverged:
                break
            module.eval()
            with run.averaged():
                epoch = Epoch(
                    number, mean, _checked(validate, number, groups), run.lr,
                    time.perf_counter() - began,
                )  # fmt: skip
                run.keep(epoch)
            if on_epoch is not None:
                on_epoch(epoch, run.state)
    except KeyboardInterrupt:
        if not (stoppable and run.log):
            raise
        interrupted = True
    run.finish()
    return Optimized(tuple(run.log), run.best_epoch, interrupted, diverged)


def _checked(validate: Callable[[], float], number: int, groups: Sequence[Group]) -> float:
    import torch

    with torch.inference_mode():
        found = float(validate())
    if not math.isfinite(found):
        raise OptionError(
            f"training diverged: the loss is {found} after epoch {number}. Lower the "
            f"learning rate, which is {groups[0].lr}."
        )
    return found


class _Run:
    """Everything that changes while a module is trained."""

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[Group],
        total_steps: int,
        warm_up: float,
        clip: float,
        average: float,
        bfloat16: bool,
    ) -> None:
        import torch

        self.module, self.groups, self.clip, self.average = module, groups, clip, average
        self.parameters = [one for group in groups for one in group.parameters]
        self.device = self.parameters[0].device.type
        self.bfloat16 = bfloat16 or self.device == "cuda"
        self.pieces = 1
        fused = self.device in ("cpu", "cuda")  # one kernel a step: small heads are all overhead
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(own.parameters), "lr": own.lr, "weight_decay": own.weight_decay}
                for own in groups
            ],
            fused=fused,
        )
        total_steps = max(total_steps, 2)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=[own.lr for own in groups],
            total_steps=total_steps,
            pct_start=max(warm_up, 1.5 / total_steps),  # torch divides by the steps after the first
        )
        self.starts = [self._copies(group.parameters) for group in groups]
        self.means = self._copies(self.parameters) if average else self.parameters
        self.best = self._copies(self.parameters)
        self.log: list[Epoch] = []
        self.best_epoch = 0

    @property
    def lr(self) -> float:
        """Rate of the first group."""
        return float(self.schedule.get_last_lr()[0])

    def thaw(self, epoch: int) -> None:
        """Let gradients flow to the groups whose time has come."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.requires_grad_(epoch >= group.first_epoch)
                if epoch < group.first_epoch:
                    parameter.grad = None

    def step(self, loss: Loss, batch: tuple[torch.Tensor, ...]) -> float:
        """Take one step, and give the loss before it."""
        import torch

        value = self._gradients(loss, batch)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        rates = self.schedule.get_last_lr()
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            for group, start, rate in zip(self.groups, self.starts, rates, strict=True):
                if group.pull:
                    for parameter, origin in zip(group.parameters, start, strict=True):
                        parameter.lerp_(origin, min(rate * group.pull, 1.0))
            if self.average:
                for mean, parameter in zip(self.means, self.parameters, strict=True):
                    mean.lerp_(parameter, 1 - self.average)
        return value

    def _gradients(self, loss: Loss, batch: tuple[torch.Tensor, ...]) -> float:
        """Give the loss and leave its gradients; in more pieces once memory has run out."""
        import torch

        while True:
            self.optimizer.zero_grad(set_to_none=True)
            value = 0.0
            try:
                size = -(-len(batch[0]) // self.pieces)
                for piece in zip(*(torch.split(part, size) for part in batch), strict=True):
                    with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
                        own = loss(self.module, *piece)
                    own.backward()  # type: ignore[no-untyped-call]
                    value += float(own.detach())
                return value
            except RuntimeError as error:
                if not _out_of_memory(error) or self.pieces >= len(batch[0]):
                    raise
            self.pieces *= 2
            _log.warning(
                "memory ran out: batches of %d go through in %d pieces, their gradients added up",
                len(batch[0]),
                self.pieces,
            )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Lend the module the average of its weights."""
        if not self.average:
            yield
            return
        own = self._copies(self.parameters)
        self._fill(self.means)
        try:
            yield
        finally:
            self._fill(own)

    def keep(self, epoch: Epoch) -> None:
        """Write an epoch down, and its weights if they are the best so far."""
        if epoch.validation_loss < min([one.validation_loss for one in self.log] or [math.inf]):
            self.best, self.best_epoch = self._copies(self.parameters), epoch.number
        self.log.append(epoch)

    def finish(self) -> None:
        """Give the module its best weights."""
        self._fill(self.best)

    def state(self) -> dict[str, Any]:
        """Give what `restore` takes: tensors, numbers and texts."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "parameters": self._copies(self.parameters),
            "means": self._copies(self.means),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "log": [asdict(epoch) for epoch in self.log],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        import torch

        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._fill(state["parameters"])
        with torch.no_grad():
            for mean, kept in zip(self.means, state["means"], strict=True):
                mean.copy_(kept)
        self.best, self.best_epoch = list(state["best"]), state["best_epoch"]
        self.log = [Epoch(**entry) for entry in state["log"]]

    def _fill(self, values: Sequence[torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)

    @staticmethod
    def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [tensor.detach().clone() for tensor in tensors]


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
