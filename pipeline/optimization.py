"""Optimization: the one training loop, read top to bottom.

Small torch heads use it; whoever trains a network later uses it, too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import OptionError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Optimized", "optimize"]


@dataclass(frozen=True)
class Optimized:
    """What a training came to.

    Parameters
    ----------
    epochs : int
        Epochs that ran.
    best_epoch : int
        The one whose weights the module has now, counted from 1.
    losses : tuple of float
        Validation loss after each epoch.
    """

    epochs: int
    best_epoch: int
    losses: tuple[float, ...]


def optimize(
    module: nn.Module,
    batches: Callable[[], Iterable[tuple[torch.Tensor, ...]]],
    loss: Callable[..., torch.Tensor],
    validate: Callable[[], float],
    *,
    steps_per_epoch: int,
    max_epochs: int,
    lr: float,
    weight_decay: float = 0.0,
    patience: int = 10,
    clip: float = 1.0,
) -> Optimized:
    """Train a module with AdamW under a one-cycle schedule, and keep its best weights.

    Loshchilov and Hutter (2019), arXiv 1711.05101; Smith and Topin (2018), arXiv 1708.07120.

    Parameters
    ----------
    module : nn.Module
        Trained in place; on a CUDA device in bfloat16 autocast.
    batches : callable
        Gives the batches of an epoch, already on the module's device.
    loss : callable
        Mean loss of a batch: ``loss(module, *batch)``.
    validate : callable
        Loss on rows that are not trained on; called after each epoch, in eval mode.
    steps_per_epoch, max_epochs : int
    lr : float
        Peak of the schedule.
    weight_decay : float
    patience : int
        Epochs without a better validation loss before it ends.
    clip : float
        Largest norm of the gradient.

    Raises
    ------
    OptionError
        When the loss is no finite number any more.
    """
    import torch

    parameters = [p for p in module.parameters() if p.requires_grad]
    device = parameters[0].device.type
    fused = device in ("cpu", "cuda")  # one kernel a step: small heads are all overhead
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=max(steps_per_epoch * max_epochs, 2)
    )
    best, best_epoch, best_state = math.inf, 0, copy.deepcopy(module.state_dict())
    losses: list[float] = []
    for epoch in range(1, max_epochs + 1):
        module.train()
        for batch in batches():
            with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
                value = loss(module, *batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            schedule.step()
        module.eval()
        with torch.inference_mode():
            losses.append(validate())
        if not math.isfinite(losses[-1]):
            raise OptionError(
                f"training diverged: the loss is {losses[-1]} after epoch {epoch}. Lower the "
                f"learning rate, which is {lr}."
            )
        if losses[-1] < best:
            best, best_epoch, best_state = losses[-1], epoch, copy.deepcopy(module.state_dict())
        elif epoch - best_epoch >= patience:
            break
    module.load_state_dict(best_state)
    return Optimized(len(losses), best_epoch, tuple(losses))
