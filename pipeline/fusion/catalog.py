"""Fusers by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pipeline.errors import UnknownNameError

__all__ = ["FUSERS", "make_fuser"]

FUSERS: dict[str, str] = {
    "last": "pipeline.fusion.concat:SingleLayer",
    "average": "pipeline.fusion.average:AverageFusion",
    "weighted": "pipeline.fusion.average:WeightedFusion",
    "concat": "pipeline.fusion.concat:ConcatFusion",
}
"""Import string of each fuser; ``single:LAYER`` names one layer."""

_SINGLE = "single:"


def make_fuser(name: str, *, layer_slices: Mapping[str, slice], random_state: int = 0) -> Any:
    """Build an unfitted fuser.

    Parameters
    ----------
    name : str
        A key of `FUSERS`, or ``single:LAYER``. ``weighted`` learns its weights.
    layer_slices : dict of str to slice
    random_state : int

    Raises
    ------
    UnknownNameError
        For any other name.

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
        fuser.set_params(layer=name.removeprefix(_SINGLE))
    if name == "weighted":
        fuser.set_params(weights="learned")
    if "random_state" in fuser.get_params():
        fuser.set_params(random_state=random_state)
    return fuser.set_output(transform="default")
