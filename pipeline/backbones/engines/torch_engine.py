"""Torch: the engine of every device but the processor, and of what OpenVINO cannot run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.backbones.engines.engine import Engine, EngineMemoryError
from pipeline.backbones.graph import EmbeddingGraph
from pipeline.backbones.layer import Layer
from pipeline.backbones.network import Network
from pipeline.errors import BackboneError, reason_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COMPILE_FROM", "TorchEngine"]

COMPILE_FROM = 1_000_000
"""Pictures from which compiling is repaid on CUDA.

It takes about a minute, and saves ``1 / eager rate - 1 / compiled rate`` a picture: by the
published rates of timm on an RTX 5090, 28 microseconds for EfficientNet-Lite0 (15,300 and
27,100 images/s), 77 for ResNet-50 (6,400 and 12,400), 27 for ViT-B/16 (3,900 and 4,400).
So it is repaid after 0.8 to 2 million pictures.
"""


class TorchEngine(Engine):
    """Torch as it stands, channels last; or compiled, for batches of one size.

    ``float32`` is true float32: TF32, which torch takes for convolutions on CUDA unless told
    otherwise, is off, and so is the choice of kernels by timing, which would make the last
    bits depend on the day.

    Parameters
    ----------
    network, layers
        What to run, and up to where.
    device, precision : str
        Resolved ones.
    compiled : bool
        Whether torch compiles the graph at the first batch (with CUDA graphs on CUDA).
        Smaller batches are filled up to the size of the first.
    """

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        device: str,
        precision: str,
        *,
        compiled: bool = False,
    ) -> None:
        self._graph = EmbeddingGraph(network, layers, device, getattr(torch, precision))
        self._graph.module.to(memory_format=torch.channels_last)
        self.device = device
        self.name = "compiled" if compiled else "eager"
        self.depth = 1 if device == "cpu" else 2
        self._idle: list[_Staging] = []
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._size = 0

    def begin(self, pictures: NDArray[np.uint8]) -> _OnDevice:
        """Start on a batch; see `Engine`. On a CPU it is finished then."""
        with self._errors(), torch.no_grad(), _exact():
            batch = torch.from_numpy(pictures)
            run = (
                self._compiled_for(batch) if self.name == "compiled" and len(batch) else self._graph
            )
            if not self.device.startswith("cuda"):
                return _OnDevice(self, run(batch.to(self.device)))
            staging = self._idle.pop() if self._idle else _Staging()
            vectors = run(staging.pictures(batch).to(self.device, non_blocking=True))
            return _OnDevice(self, vectors, staging)

    def _compiled_for(self, batch: Tensor) -> Callable[[Tensor], Tensor]:
        """Give what runs this batch on the compiled graph, filled up to the graph's size."""
        if self._compiled is None or len(batch) > self._size:
            self._size = len(batch)
            self._compiled = self._compile(batch)
        run, missing = self._compiled, self._size - len(batch)

        def filled_up(pictures: Tensor) -> Tensor:
            whole = torch.cat([pictures, pictures[:1].expand(missing, -1, -1, -1)])
            return run(whole)[: len(pictures)]

        return filled_up if missing else run

    def _compile(self, batch: Tensor) -> Callable[[Tensor], Tensor]:
        """Trace the graph for batches of this size, without its hooks, and compile the trace."""
        from torch.fx.experimental.proxy_tensor import make_fx

        traced = make_fx(self._graph)(batch.to(self.device))
        mode = "reduce-overhead" if self.device.startswith("cuda") else "default"
        compiled: Callable[[Tensor], Tensor] = torch.compile(traced, mode=mode)
        return compiled

    def reuse(self, staging: _Staging) -> None:
        """Take back the host memory of a batch that is done."""
        self._idle.append(staging)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise EngineMemoryError(str(error)) from error
        except torch.AcceleratorError as error:
            raise BackboneError(
                f"the device {self.device} stopped working: {reason_of(error)}. What is finished "
                "is kept: give the same command again, or --device cpu."
            ) from error


class _Staging:
    """Page-locked memory of one batch on its way to the device and of its vectors back."""

    def __init__(self) -> None:
        self._pictures = self._vectors = torch.empty(0)

    def pictures(self, batch: Tensor) -> Tensor:
        if len(self._pictures) < len(batch):
            self._pictures = torch.empty_like(batch, pin_memory=True)
        return self._pictures[: len(batch)].copy_(batch)

    def fetch(self, vectors: Tensor) -> Tensor:
        if len(self._vectors) < len(vectors):
            self._vectors = torch.empty_like(vectors, device="cpu", pin_memory=True)
        return self._vectors[: len(vectors)].copy_(vectors, non_blocking=True)


class _OnDevice:
    """A batch that the device is at work on."""

    def __init__(
        self, engine: TorchEngine, vectors: Tensor, staging: _Staging | None = None
    ) -> None:
        self._engine, self._staging = engine, staging
        self._vectors = vectors if staging is None else staging.fetch(vectors)
        # A CUDA graph writes its next result over this one: what is copied is waited for.
        self._copied = None if staging is None else torch.cuda.current_stream().record_event()

    def result(self) -> NDArray[np.float32]:
        with self._engine._errors():
            if self._copied is not None:
                self._copied.synchronize()
            vectors: NDArray[np.float32] = self._vectors.cpu().numpy()
        if self._staging is None:
            return vectors
        own: NDArray[np.float32] = vectors.copy()
        self._engine.reuse(self._staging)
        return own


@contextmanager
def _exact() -> Iterator[None]:
    """Take the same kernels each time, without TF32; the caller's choice comes back after."""
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
