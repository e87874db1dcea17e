"""OpenVINO: the engine of the processor.

Chosen by measurement: it is the fastest without a compiler, and its vectors do not depend
on batch size, neighbours or threads.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.device import import_openvino
from pipeline.backbones.engines.engine import Engine, EngineMemoryError
from pipeline.processors import usable_processors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones.graph import EmbeddingGraph

__all__ = ["OpenVINOEngine", "converted"]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_NO_MEMORY = ("bad_alloc", "allocate", "out of memory")


class OpenVINOEngine(Engine):
    """OpenVINO on the CPU, in float32 or native bfloat16.

    Several batches run side by side, each on few threads: that is faster than one batch on
    all of them, which wait for each other at every layer, and all the more while the
    loading threads want the same processors.

    A picture alone is run twice, side by side: for a batch of one, some kernels add up in
    another order (seen in Swin and PoolFormer), and its vector would depend on that.
    """

    name = "openvino"

    def __init__(self, model: Any, precision: str):
        # The same number for every engine of a process, where the hint alone may choose by the
        # model: OpenVINO 2026.4 crashes where compiled models of unequal threads run by turns.
        n_processors = usable_processors()
        streams = min(n_processors, max(2, n_processors // 4))
        self._compiled = import_openvino().compile_model(  # type: ignore[union-attr]
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "PERFORMANCE_HINT": "THROUGHPUT",
                "NUM_STREAMS": streams,
            },
        )
        # One more than run at once, so that none waits for us to fetch its result.
        self.depth = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
        self._idle: list[Any] = []

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a batch that comes alone: shared out, so that all processors work on it."""
        pieces = np.array_split(pictures, max(1, min(self.depth - 1, len(pictures) // 2)))
        running = [self.begin(piece) for piece in pieces]
        return np.concatenate([one.result() for one in running])

    def begin(self, pictures: NDArray[np.uint8]) -> _Running:
        """Start on a batch; see `Engine`."""
        request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        batch = np.repeat(pictures, 2, axis=0) if len(pictures) == 1 else pictures
        with _memory_errors():
            request.start_async([batch], share_inputs=True)
        return _Running(request, batch, len(pictures), self._idle)


class _Running:
    """A batch that OpenVINO is at work on; its pictures are kept as long as that."""

    def __init__(self, request: Any, batch: NDArray[np.uint8], count: int, idle: list[Any]) -> None:
        self._request, self._batch, self._count, self._idle = request, batch, count, idle

    def result(self) -> NDArray[np.float32]:
        request, self._request = self._request, None  # it is given back once
        with _memory_errors():
            request.wait()
        vectors: NDArray[np.float32] = request.get_output_tensor().data[: self._count].copy()
        self._idle.append(request)
        return vectors


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if any(sign in str(error) for sign in _NO_MEMORY):
            raise EngineMemoryError(str(error)) from error
        raise


def converted(graph: EmbeddingGraph, image_size: tuple[int, int]) -> Any:
    """Trace a graph for any batch size, and give OpenVINO's model of it."""
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
