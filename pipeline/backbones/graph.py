"""EmbeddingGraph: from 8-bit pictures to all layers packed into one array, as one module.

Every engine runs this same module: eager torch as it stands, the others converted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.backbones.layer import Layer
from pipeline.backbones.network import OUTPUT, Network, pack, tapped

__all__ = ["EmbeddingGraph"]


class _DeepestTapReached(Exception):  # noqa: N818 - a signal, not an error
    """Raised behind the deepest tap: nothing above it is computed."""


def _stop(_module: nn.Module, _inputs: Any, _output: Any) -> None:
    raise _DeepestTapReached


class EmbeddingGraph(nn.Module):
    """Normalise, run the network up to the deepest tap, pool and pack.

    Parameters
    ----------
    network : Network
        The module with its taps.
    layers : sequence of Layer
        What to compute, in the order in which it is packed.
    dtype : torch.dtype
        Arithmetic of the network. Normalisation and pooling are in float32.
    """

    def __init__(
        self, network: Network, layers: Sequence[Layer], dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.module = network.module
        self.layers = tuple(layers)
        self.prefix_tokens = network.prefix_tokens
        self.dtype = dtype
        scale = torch.tensor(network.preprocess.std) * 255.0
        shift = torch.tensor(network.preprocess.mean) * 255.0
        self.register_buffer("shift", shift.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        self.deepest = _deepest(network, layers)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Embed a batch.

        Parameters
        ----------
        pictures : uint8 Tensor of shape (batch, height, width, 3)

        Returns
        -------
        float32 Tensor of shape (batch, sum of widths)
        """
        normal = (pictures.permute(0, 3, 1, 2).float() - self.shift) / self.scale
        names = list(dict.fromkeys(layer.module for layer in self.layers))
        with tapped(self.module, names) as outputs:
            if self.deepest == OUTPUT:
                self.module(normal.to(self.dtype))
            else:
                self._run_to_deepest(normal.to(self.dtype))
        return pack(self.layers, outputs, self.prefix_tokens)

    def _run_to_deepest(self, normal: Tensor) -> None:
        handle = self.module.get_submodule(self.deepest).register_forward_hook(_stop)
        try:
            self.module(normal)
        except _DeepestTapReached:
            pass
        finally:
            handle.remove()


def _deepest(network: Network, layers: Sequence[Layer]) -> str:
    wanted = {layer.module for layer in layers}
    return [module for module in network.taps.values() if module in wanted][-1]
