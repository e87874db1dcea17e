"""Engines: what runs an embedding graph on a device.

On the CPU it is OpenVINO, chosen by measurement: it is the fastest without a compiler, and
its vectors do not depend on batch size, neighbours or threads. Eager torch serves
everywhere else, and where OpenVINO is missing or cannot convert a network.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.backbones.device import import_openvino, native_bfloat16
from pipeline.backbones.layer import Layer
from pipeline.backbones.network import Network
from pipeline.spec import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones.graph import EmbeddingGraph

__all__ = ["Engine", "EngineMemoryError", "make_engine"]

_log = logging.getLogger(__name__)


class EngineMemoryError(MemoryError):
    """The device has no memory for a batch of this size; a smaller one may fit."""


class Engine(Protocol):
    """Embeds batches of 8-bit pictures."""

    name: str

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Give ``(batch, sum of widths)`` for pictures ``(batch, height, width, 3)``."""


class EagerEngine:
    """Torch as it stands, channels last."""

    name = "eager"

    def __init__(self, network: Network, layers: Sequence[Layer], device: str, precision: str):
        import torch

        from pipeline.backbones.graph import EmbeddingGraph

        dtype = getattr(torch, precision)
        graph = EmbeddingGraph(network, layers, dtype)
        if dtype is not torch.float32 or device != "cpu":
            graph.module = copy.deepcopy(graph.module)  # the caller's network stays as it is
        graph.module.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self._graph = graph.to(device)
        self._device = device

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a batch; see `Engine`."""
        import torch

        with torch.inference_mode():
            try:
                batch = torch.from_numpy(pictures).to(self._device)
                vectors: NDArray[np.float32] = self._graph(batch).cpu().numpy()
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                raise EngineMemoryError(str(error)) from error
        return vectors


class OpenVINOEngine:
    """OpenVINO on the CPU, in float32 or native bfloat16."""

    name = "openvino"

    def __init__(self, network: Network, layers: Sequence[Layer], precision: str):
        from pipeline.backbones.graph import EmbeddingGraph

        model = _convert(EmbeddingGraph(network, layers), network.preprocess.image_size)
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        self._compiled = import_openvino().compile_model(  # type: ignore[union-attr]
            model, "CPU", {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        )
        self._request = self._compiled.create_infer_request()

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a batch; see `Engine`."""
        result = self._request.infer([pictures], share_inputs=True, share_outputs=False)
        vectors: NDArray[np.float32] = result[0]
        return vectors


def make_engine(
    network: Network, layers: Sequence[Layer], *, device: str, precision: Precision
) -> Engine:
    """Choose the engine by rule: OpenVINO on a CPU that computes in ``precision``, else eager.

    Parameters
    ----------
    network : Network
    layers : sequence of Layer
        What to compute; nothing above the deepest of them is.
    device : str
        A resolved device.
    precision : {"float32", "bfloat16", "float16"}
    """
    if device != "cpu" or (precision == "bfloat16" and not native_bfloat16()):
        return EagerEngine(network, layers, device, precision)
    if import_openvino() is None:
        _log.warning("openvino cannot be imported: the slower eager engine of torch serves")
        return EagerEngine(network, layers, device, precision)
    try:
        return OpenVINOEngine(network, layers, precision)
    except Exception as error:  # openvino's converter raises whatever its parts raise
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        _log.warning("openvino cannot convert this network (%s): eager torch serves", reason)
        return EagerEngine(network, layers, device, precision)


def _convert(graph: EmbeddingGraph, image_size: tuple[int, int]) -> Any:
    """Trace the graph for any batch size."""
    import warnings

    import torch

    openvino = import_openvino()
    height, width = image_size
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every shape that it fixes
        return openvino.convert_model(  # type: ignore[union-attr]
            graph, example_input=example, input=[(-1, height, width, 3)]
        )
