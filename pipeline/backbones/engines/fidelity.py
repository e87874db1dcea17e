"""Fidelity: whether an engine gives the numbers of eager torch in float32.

Tracing fixes what depends on the input, compilers reorder sums, and 16 bits round: an
engine that gives something else is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones.layer import Layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones.engines.engine import Engine
    from pipeline.backbones.network import Network

__all__ = ["Reference", "agreement", "probe_pictures", "unlike"]

LEAST = {"float32": 0.999, "bfloat16": 0.995, "float16": 0.995}
"""Least agreement of every layer, by precision."""


def agreement(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """Smallest agreement of two matrices, row by row.

    It is the cosine, but counts unequal length too: ``2 a b / (a a + b b)``, never above a
    cosine that is positive, and 1 for equal rows. A row of ``theirs`` that is not finite says
    nothing.

    Examples
    --------
    >>> agreement(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]))
    0.8
    """
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    telling = np.isfinite(theirs).all(axis=1) & (ours != theirs).any(axis=1)
    ours, theirs = ours[telling], theirs[telling]
    squares = (ours**2).sum(axis=1) + (theirs**2).sum(axis=1)
    with np.errstate(invalid="ignore"):  # where ours is not finite, and so unlike
        found = 2 * (ours * theirs).sum(axis=1) / squares
    return float(found.min(initial=1.0))


def probe_pictures(image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Five pictures ``(5, height, width, 3)`` that differ in texture and in brightness.

    More than a graph is traced with, and brighter: a branch or a batch size that was fixed
    shows.
    """
    height, width = image_size
    random = np.random.default_rng(0)
    fine = random.integers(0, 256, (height, width, 3))
    coarse = random.integers(0, 256, (8, 8, 3))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    patches = 64 + coarse[rows][:, columns] * 3 // 4
    pictures = [fine, patches, ramp, fine // 4, 255 - fine // 4]
    return np.stack(pictures).astype(np.uint8)


class Reference:
    """What eager torch gives in float32 on a device.

    Parameters
    ----------
    network : Network
    layers : sequence of Layer
        Bottom to top.
    device : str
    """

    def __init__(self, network: Network, layers: Sequence[Layer], device: str) -> None:
        from pipeline.backbones.engines.torch_engine import TorchEngine

        self._layers = layers
        self._pictures = probe_pictures(network.preprocess.image_size)
        self._expected = TorchEngine(network, layers, device, "float32").embed(self._pictures)

    def agreements(self, engine: Engine) -> dict[str, float]:
        """Give the agreement of every layer with an engine's."""
        vectors = engine.embed(self._pictures)
        ends = np.cumsum([layer.width for layer in self._layers])
        return {
            layer.name: agreement(
                vectors[:, end - layer.width : end], self._expected[:, end - layer.width : end]
            )
            for layer, end in zip(self._layers, ends, strict=True)
        }


def unlike(agreements: Mapping[str, float], precision: str) -> str | None:
    """Say which layer is unlike torch's; None where all agree.

    Examples
    --------
    >>> unlike({"low": 1.0, "high": 0.9}, "float32")
    'it gives other numbers for high: they agree to 0.9000, and 0.999 is asked for'
    """
    for layer, found in agreements.items():
        if not found >= LEAST[precision]:  # not a number is unlike, too
            return (
                f"it gives other numbers for {layer}: they agree to {found:.4f}, and "
                f"{LEAST[precision]} is asked for"
            )
    return None
