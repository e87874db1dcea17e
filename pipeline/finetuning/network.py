"""TunableNetwork: a cut network with the heads of stage 2 as its linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.backbones import Cut
from pipeline.finetuning.objectives import Objective
from pipeline.finetuning.start import Start
from pipeline.heads import Folded

__all__ = ["TunableNetwork"]


class TunableNetwork(nn.Module):
    """Layers of a cut network, scaled, and a linear layer for each objective.

    Before the first step it gives what the frozen model predicts (LP-FT: Kumar et al., 2022,
    arXiv 2202.10054).

    Parameters
    ----------
    cut : Cut
    start : Start
        Its heads become the linear layers. Columns go into them as ``(x - offset) * scale``, of
        about the same size, so that one rate suits all.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, cut: Cut, start: Start) -> None:
        super().__init__()
        self.cut, self.objectives = cut, tuple(start.objectives)
        self._classes = [head.classes for head in start.heads.values()]
        self.register_buffer("offset", torch.tensor(start.offset, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(start.scale, dtype=torch.float32))
        self.heads = nn.ModuleList(
            _linear(head, objective, start)
            for head, objective in zip(start.heads.values(), self.objectives, strict=True)
        )
        self.doubt = nn.Parameter(torch.zeros(len(self.objectives)), requires_grad=False)
        """Logarithm of the variance of each task, where they are weighted by it."""

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Give the scores of each objective.

        Parameters
        ----------
        *inputs : Tensor
            Pictures, or what `Cut.resume` takes.
        """
        features = self.cut(*inputs) if len(inputs) == 1 else self.cut.resume(*inputs)
        scaled = (features - self.offset) * self.scale
        return [head(scaled) for head in self.heads]

    def train(self, mode: bool = True) -> TunableNetwork:
        """Stay in eval mode: statistics of batch normalisation are those it came with."""
        return super().train(False)

    def levels(self) -> list[list[nn.Parameter]]:
        """List the trained parameters of the network by block, the top one first."""
        parameters = dict(self.cut.module.named_parameters())
        depths = sorted(set(self.cut.trained.values()))
        return [
            [parameters[name] for name, own in self.cut.trained.items() if own == depth]
            for depth in depths
        ]

    def state(self) -> dict[str, Tensor]:
        """Copy everything that is trained."""
        own = {name: p for name, p in self.named_parameters() if self._is_trained(name)}
        return {name: parameter.detach().clone() for name, parameter in own.items()}

    def fill(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave."""
        with torch.no_grad():
            for name, value in state.items():
                self.get_parameter(name).copy_(value)

    def _is_trained(self, name: str) -> bool:
        return (
            name.startswith(("heads.", "doubt"))
            or name.removeprefix("cut.module.") in self.cut.trained
        )

    def folded(self) -> dict[str, Folded]:
        """Give the linear layer of each task as a map of the raw columns."""
        scale, offset = (_array(buffer) for buffer in (self.scale, self.offset))
        found = {}
        for objective, own, classes in zip(self.objectives, self.heads, self._classes, strict=True):
            linear = cast("nn.Linear", own)
            coef = _array(linear.weight) * scale * objective.spread
            intercept = _array(linear.bias) * objective.spread + objective.mean - coef @ offset
            found[objective.name] = Folded(coef, intercept, classes, objective.kind)
        return found


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _linear(head: Folded, objective: Objective, start: Start) -> nn.Linear:
    intercept = (head.intercept + head.coef @ start.offset - objective.mean) / objective.spread
    coef = head.coef / start.scale / objective.spread
    linear = nn.Linear(coef.shape[1], len(coef))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(coef))
        linear.bias.copy_(torch.from_numpy(intercept))
    return linear
