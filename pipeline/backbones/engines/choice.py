"""The rule by which an engine is chosen; nothing is measured at run time.

On a CPU OpenVINO, where it computes in the precision and can convert the network; on CUDA
torch, compiled once the number of pictures repays it; else torch as it stands.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.backbones.device import import_openvino, native_bfloat16
from pipeline.backbones.engines.fidelity import Reference, unlike
from pipeline.backbones.engines.openvino_engine import OpenVINOEngine, converted
from pipeline.backbones.layer import Layer
from pipeline.backbones.prepared import PreparedGraph, read_graph, written_graph
from pipeline.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.backbones.engines.engine import Engine
    from pipeline.backbones.network import Network

__all__ = ["make_engine", "prepared_engine"]

_log = logging.getLogger(__name__)


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
    n_images: int = 0,
) -> Engine:
    """Choose the engine by rule, and hold it against eager torch in float32.

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
    n_images : int
        How many pictures are to come.

    Raises
    ------
    BackboneError
        When there is no room to write the converted graph.
    """
    from pipeline.backbones.engines.torch_engine import COMPILE_FROM, TorchEngine

    reference = functools.cache(lambda: Reference(network, layers, device))
    if device == "cpu":
        found = _openvino(network, layers, precision, prepared, reference)
        if found is not None:
            return found
    if device.startswith("cuda") and n_images >= COMPILE_FROM:
        compiled = TorchEngine(network, layers, device, precision, compiled=True)
        try:
            reason = unlike(reference().agreements(compiled), precision)
        except Exception as error:  # the compiler raises whatever its parts raise
            reason = _why(error)
        if reason is None:
            return compiled
        _log.warning("torch cannot compile this network (%s): eager torch serves", reason)
    eager = TorchEngine(network, layers, device, precision)
    if precision != "float32":
        reason = unlike(reference().agreements(eager), precision)
        if reason is not None:  # not the engine's fault: this arithmetic gives no more
            _log.warning("%s loses much (%s): --precision float32 does not", precision, reason)
    return eager


def _openvino(
    network: Network,
    layers: Sequence[Layer],
    precision: Precision,
    prepared: PreparedGraph | None,
    reference: Callable[[], Reference],
) -> Engine | None:
    """Give OpenVINO's engine; None, and why is said, where eager torch has to serve."""
    if precision == "bfloat16" and not native_bfloat16():
        _log.warning("this processor has no bfloat16 of its own: float32 would be faster")
        return None
    if import_openvino() is None:
        _log.warning("openvino cannot be imported: the slower eager engine of torch serves")
        return None
    reason = prepared.refusal() if prepared is not None else None
    if reason is None:
        try:
            return _checked(network, layers, precision, prepared, reference())
        except _CannotConvertError as error:
            reason = str(error)
            if prepared is not None and not isinstance(error.__cause__, MemoryError):
                prepared.refuse(reason)
    _log.warning("openvino cannot convert this network (%s): eager torch serves", reason)
    return None


class _CannotConvertError(Exception):
    """OpenVINO refuses the network, or computes something else than torch."""


def _checked(
    network: Network,
    layers: Sequence[Layer],
    precision: Precision,
    prepared: PreparedGraph | None,
    reference: Reference,
) -> OpenVINOEngine:
    """Convert the graph, hold it against torch, and keep it with the verdict."""
    from pipeline.backbones.graph import EmbeddingGraph

    graph = EmbeddingGraph(network, layers)
    try:
        model = converted(graph, network.preprocess.image_size)
    except Exception as error:  # openvino raises whatever its parts raise
        raise _CannotConvertError(_why(error)) from error
    # Written and read again even where it is not kept: a graph that comes from its files
    # differs from the converted one in the last bit, and every run shall give the same.
    contents = written_graph(model)
    try:
        engine = OpenVINOEngine(read_graph(contents), precision)
        agreements = reference.agreements(engine)
    except Exception as error:
        raise _CannotConvertError(_why(error)) from error
    reason = unlike(agreements, precision)
    if reason is not None:
        raise _CannotConvertError(reason)
    if prepared is not None:
        prepared.keep(contents, agreements)
    return engine


def _why(error: Exception) -> str:
    """Pick the one line of a compiler's report that says something."""
    lines = [line.strip("- .") for line in str(error).splitlines() if line.strip()]
    rules = [line for line in lines if line.startswith("No conversion rule")]
    return (rules or lines or [repr(error)])[-1]
