"""EmbeddingGraph: from 8-bit pictures to all layers packed into one array, as one module.

Every engine runs this same module: eager torch as it stands, the others converted from it.
`PredictingGraph` goes on from there to what heads make of the layers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.backbones.layer import Layer
from pipeline.backbones.network import Network, pack, tapped
from pipeline.errors import InputError

__all__ = ["EmbeddingGraph", "PredictingGraph"]


class _DeepestTapReached(Exception):  # noqa: N818 - a signal, not an error
    """Raised behind the deepest tap: nothing above it is computed."""


def _stop(_module: nn.Module, _inputs: Any, _output: Any) -> None:
    raise _DeepestTapReached


class EmbeddingGraph(nn.Module):
    """Normalise, run the network up to the deepest tap, pool and pack.

    The module is copied, so that the caller's stays where and as it is.

    Parameters
    ----------
    network : Network
        The module with its taps.
    layers : sequence of Layer
        What to compute, bottom to top: it is packed in this order.
    device : str
        Where it runs.
    dtype : torch.dtype
        Arithmetic of the network. Normalisation and pooling are in float32.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.module = copy.deepcopy(network.module).to(dtype)
        self.layers = tuple(layers)
        self.dtype = dtype
        scale = torch.tensor(network.preprocess.std) * 255.0
        shift = torch.tensor(network.preprocess.mean) * 255.0
        self.register_buffer("shift", shift.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        self.eval().to(device)

    def forward(self, pictures: Tensor) -> Tensor:
        """Embed a batch.

        Parameters
        ----------
        pictures : uint8 Tensor of shape (batch, height, width, 3)

        Returns
        -------
        float32 Tensor of shape (batch, sum of widths)
        """
        return self.packed(pictures, self.layers)

    def packed(self, pictures: Tensor, layers: Sequence[Layer]) -> Tensor:
        """Embed a batch in some of the layers, bottom to top; nothing above them is computed."""
        normal = (pictures.permute(0, 3, 1, 2).float() - self.shift) / self.scale
        names = list(dict.fromkeys(layer.module for layer in layers))
        with tapped(self.module, names) as outputs:
            self._run(normal.to(self.dtype), layers[-1].module)
        return pack(layers, outputs)

    def _run(self, normal: Tensor, deepest: str) -> None:
        if torch.compiler.is_exporting():
            self.module(normal)  # its tracer minds where calls end, and drops what is not used
            return
        handle = self.module.get_submodule(deepest).register_forward_hook(_stop)
        try:
            self.module(normal)
        except _DeepestTapReached:
            pass
        finally:
            handle.remove()


class PredictingGraph(nn.Module):
    """Embed pictures with one network or several, and answer with heads that are modules.

    Its parameters are frozen, and it is in evaluation mode.

    Parameters
    ----------
    graphs : sequence of EmbeddingGraph
    halved : sequence of bool
        Whether the vectors of each are rounded to half precision, as a cache stores them.
    heads : mapping of str to nn.Module
        By target. Each takes the vectors of all graphs side by side.
    image_size : (int, int)
        Height and width of the pictures.
    """

    def __init__(
        self,
        graphs: Sequence[EmbeddingGraph],
        halved: Sequence[bool],
        heads: Mapping[str, nn.Module],
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.graphs = nn.ModuleList(graphs)
        self.halved = tuple(halved)
        self.heads = nn.ModuleList(heads.values())
        self.targets = tuple(heads)
        self.image_size = image_size
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Answer for a batch.

        Parameters
        ----------
        pictures : uint8 Tensor of shape (batch, height, width, 3)

        Returns
        -------
        Tensor, or tuple of them
            What the only head gives, or every head in the order of ``targets``.

        Raises
        ------
        InputError
            When the batch has another shape or dtype.
        """
        height, width = self.image_size
        if pictures.dtype != torch.uint8 or pictures.shape[1:] != (height, width, 3):
            raise InputError(
                f"a batch must be uint8 of shape (batch, {height}, {width}, 3), but this one is "
                f"{str(pictures.dtype).removeprefix('torch.')} of shape {tuple(pictures.shape)}. "
                "Resize the pictures, and do not normalise them."
            )
        parts = [graph(pictures) for graph in self.graphs]
        rounded = [
            part.half().float() if halved else part
            for part, halved in zip(parts, self.halved, strict=True)
        ]
        vectors = torch.cat(rounded, dim=1)
        answers = tuple(head(vectors) for head in self.heads)
        return answers[0] if len(answers) == 1 else answers
