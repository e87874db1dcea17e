"""Fusers by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pipeline.errors import UnknownNameError
from pipeline.fusion.slices import find_layer

__all__ = ["FUSERS", "make_fuser"]

FUSERS: dict[str, str] = {
    "last": "pipeline.fusion.single:SingleLayer",
    "average": "pipeline.fusion.average:AverageFusion",
    "weighted": "pipeline.fusion.average:WeightedFusion",
    "concat": "pipeline.fusion.concat:ConcatFusion",
}
"""Import string of each fuser; ``single:LAYER`` names one layer."""

_SINGLE = "single:"


def make_fuser(
    name: str, *, layer_slices: Mapping[str, slice] | None = None, random_state: int = 0
) -> Any:
    """Make an unfitted fuser; whatever scikit-learn is configured to, it gives arrays.

    Parameters
    ----------
    name : str
        A key of `FUSERS`, or ``single:LAYER`` for one layer alone.
    layer_slices : dict of str to slice, or None
        Columns of each layer; None takes ``X`` for one layer.
    random_state : int
        Of the fusers that draw random numbers.

    Raises
    ------
    UnknownNameError
        For a fusion that nobody knows, or a layer that ``layer_slices`` does not hold.

    Examples
    --------
    >>> make_fuser("concat", layer_slices={"a": slice(0, 2)})
    ConcatFusion(layer_slices={'a': slice(0, 2, None)})
    """
    key = "last" if name.startswith(_SINGLE) else name
    if key not in FUSERS:
        raise UnknownNameError("fusion", name, ["auto", *FUSERS, f"{_SINGLE}LAYER"])
    module, _, kind = FUSERS[key].partition(":")
    fuser = getattr(import_module(module), kind)(layer_slices)
    if name.startswith(_SINGLE):
        layer = name.removeprefix(_SINGLE)
        fuser.set_params(layer=find_layer(layer, layer_slices) if layer_slices else layer)
    if "random_state" in fuser.get_params():
        fuser.set_params(random_state=random_state)
    return fuser.set_output(transform="default")
