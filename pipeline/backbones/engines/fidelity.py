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
    """Agreement of two matrices of the same shape.

    It is the cosine over all their values, but counts unequal length too:
    ``2 a b / (a a + b b)``, never above a cosine that is positive, and 1 where they are equal.
    A row of ``theirs`` that is not finite says nothing.

    Examples
    --------
    >>> agreement(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]))
    0.8
    """
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    telling = np.isfinite(theirs).all(axis=1)
    ours, theirs = ours[telling], theirs[telling]
    if np.array_equal(ours, theirs):
        return 1.0
    with np.errstate(invalid="ignore"):  # where ours is not finite, and so unlike
        return float(2 * (ours * theirs).sum() / ((ours**2).sum() + (theirs**2).sum()))


def probe_pictures(image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Five pictures ``(5, height, width, 3)`` from dark to bright, as coarse and fine as photos.

    Sums of chequered noise, coarser the stronger: white noise would be harder on 16 bits than
    any photo. They are more than a graph is traced with, and brighter: a branch or a batch
    size that was fixed shows.
    """
    random = np.random.default_rng(0)
    pictures = []
    for light in (60, 100, 140, 170, 200):
        noise = sum(_chequers(image_size, cells, random) for cells in (2, 4, 8, 16, 32, 64))
        pictures.append(light + 45 * noise / np.std(noise))
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


def _chequers(
    image_size: tuple[int, int], cells: int, random: np.random.Generator
) -> NDArray[np.floating]:
    colours = random.normal(size=(cells, cells, 1)) + 0.7 * random.normal(size=(cells, cells, 3))
    rows, columns = (np.arange(side) * cells // side for side in image_size)
    return np.asarray(colours[rows][:, columns] / cells**0.5)


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
