"""Engines: what runs an embedding graph on a device.

On the CPU it is OpenVINO, chosen by measurement: it is the fastest without a compiler, and
its vectors do not depend on batch size, neighbours or threads. Eager torch serves
everywhere else, and where OpenVINO is missing or cannot convert a network.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.backbones.device import import_openvino, native_bfloat16
from pipeline.backbones.layer import Layer
from pipeline.backbones.network import Network
from pipeline.backbones.prepared import PreparedGraph, read_graph, written_graph
from pipeline.spec import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones.graph import EmbeddingGraph

__all__ = ["Engine", "EngineMemoryError", "make_engine", "prepared_engine"]

_log = logging.getLogger(__name__)

_TOLERANCES = {"float32": 0.01, "bfloat16": 0.2}
"""How far a converted layer may be from torch's, as a share of its length."""


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

        self._graph = EmbeddingGraph(network, layers, device, getattr(torch, precision))
        self._graph.module.to(memory_format=torch.channels_last)
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
    """OpenVINO on the CPU, in float32 or native bfloat16.

    A picture alone is run twice, side by side: for a batch of one, some kernels add up in
    another order (seen in Swin and PoolFormer), and its vector would depend on that.
    """

    name = "openvino"

    def __init__(self, model: Any, precision: str):
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        compiled = import_openvino().compile_model(  # type: ignore[union-attr]
            model,
            "CPU",
            {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"},
        )
        self._request = compiled.create_infer_request()

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a batch; see `Engine`."""
        if len(pictures) == 1:
            return self.embed(np.repeat(pictures, 2, axis=0))[:1]
        result = self._request.infer([pictures], share_inputs=True, share_outputs=False)
        vectors: NDArray[np.float32] = result[0]
        return vectors


def prepared_engine(prepared: PreparedGraph, device: str) -> Engine | None:
    """Give the engine of a kept graph, without the network; None where there is none."""
    if device != "cpu" or (prepared.precision == "bfloat16" and not native_bfloat16()):
        return None
    model = prepared.read()
    return None if model is None else OpenVINOEngine(model, prepared.precision)


def make_engine(
    network: Network,
    layers: Sequence[Layer],
    *,
    device: str,
    precision: Precision,
    prepared: PreparedGraph | None = None,
) -> Engine:
    """Choose the engine by rule: OpenVINO on a CPU that computes in ``precision``, else eager.

    Parameters
    ----------
    network : Network
    layers : sequence of Layer
        What to compute, bottom to top; nothing above the last of them is.
    device : str
        A resolved device.
    precision : {"float32", "bfloat16", "float16"}
    prepared : PreparedGraph, optional
        Where the converted graph is kept.
    """
    if device != "cpu":
        return EagerEngine(network, layers, device, precision)
    if precision == "bfloat16" and not native_bfloat16():
        _log.warning("this processor has no bfloat16 of its own: float32 would be faster")
        return EagerEngine(network, layers, device, precision)
    if import_openvino() is None:
        _log.warning("openvino cannot be imported: the slower eager engine of torch serves")
        return EagerEngine(network, layers, device, precision)
    try:
        return _checked_openvino(network, layers, precision, prepared)
    except _CannotConvertError as error:
        _log.warning("openvino cannot convert this network (%s): eager torch serves", error)
        return EagerEngine(network, layers, device, precision)


class _CannotConvertError(Exception):
    """OpenVINO refuses the network, or computes something else than torch."""


def _checked_openvino(
    network: Network,
    layers: Sequence[Layer],
    precision: Precision,
    prepared: PreparedGraph | None,
) -> OpenVINOEngine:
    """Convert the graph and hold it against torch, for tracing fixes what depends on the input.

    The three pictures differ much, and are one more than the graph is traced with: a branch
    or a batch size that was fixed shows.
    """
    import torch

    from pipeline.backbones.graph import EmbeddingGraph

    graph = EmbeddingGraph(network, layers)
    height, width = network.preprocess.image_size
    pictures = np.zeros((3, height, width, 3), np.uint8)
    pictures[1] = np.random.default_rng(0).integers(0, 256, pictures[1].shape, np.uint8)
    pictures[2] = 255
    with torch.no_grad():
        expected = graph(torch.from_numpy(pictures)).numpy()
    try:
        # Written and read again even where it is not kept: a graph that comes from its files
        # differs from the converted one in the last bit, and every run shall give the same.
        contents = written_graph(_convert(graph, network.preprocess.image_size))
        engine = OpenVINOEngine(read_graph(contents), precision)
        vectors = engine.embed(pictures)
    except Exception as error:  # openvino raises whatever its parts raise
        raise _CannotConvertError(_why(error)) from error
    start = 0
    for layer in layers:
        ours, torchs = (array[:, start : start + layer.width] for array in (vectors, expected))
        if np.linalg.norm(ours - torchs) > _TOLERANCES[precision] * np.linalg.norm(torchs):
            raise _CannotConvertError(f"it gives other numbers for {layer.name}")
        start += layer.width
    if prepared is not None:
        prepared.keep(contents, [layer.width for layer in layers])
    return engine


def _why(error: Exception) -> str:
    """Pick the one line of a report of OpenVINO that says something."""
    lines = [line.strip("- .") for line in str(error).splitlines() if line.strip()]
    rules = [line for line in lines if line.startswith("No conversion rule")]
    return (rules or lines or [repr(error)])[-1]


def _convert(graph: EmbeddingGraph, image_size: tuple[int, int]) -> Any:
    """Trace the graph for any batch size."""
    import torch

    height, width = image_size
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    with torch.inference_mode(False), torch.no_grad(), _undisturbed():
        return import_openvino().convert_model(  # type: ignore[union-attr]
            graph, example_input=example, input=[(-1, height, width, 3)]
        )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the tracer's warnings of every shape it fixes, and OpenVINO's hands, off the log.

    Where a conversion fails, OpenVINO leaves the root logger muted.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers
