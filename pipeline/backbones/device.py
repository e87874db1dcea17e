"""Device and precision: what ``auto`` means on this machine.

On a machine that has no accelerator this is answered without importing torch.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pipeline.errors import OptionError, UnknownNameError
from pipeline.spec import Precision

__all__ = ["import_openvino", "native_bfloat16", "resolve_device", "resolve_precision"]

_DEVICES = ("auto", "cpu", "cuda", "mps")


@cache
def import_openvino() -> Any | None:
    """Import openvino without its statistics, or None where it cannot be imported.

    ``import openvino`` reports to a server unless its telemetry package is missing; a None
    in ``sys.modules`` makes it take its own silent stub.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        return None
    return openvino


@cache
def native_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 by itself."""
    openvino = import_openvino()
    if openvino is None:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def resolve_device(device: str = "auto") -> str:
    """Say which device serves.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N", "mps"}

    Raises
    ------
    UnknownNameError, OptionError
        For a device that does not exist, in general or here.
    """
    kind, _, index = device.partition(":")
    if kind not in _DEVICES or (index and not (kind == "cuda" and index.isdecimal())):
        raise UnknownNameError("device", device, _DEVICES)
    if device == "cpu" or (device == "auto" and not _may_have_accelerator()):
        return "cpu"
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, available in here.items() if available), "cpu")
    if not here[kind] or (index and int(index) >= torch.cuda.device_count()):
        raise OptionError(f"device {device} was asked for, but torch finds none. Use auto or cpu.")
    return device


def _may_have_accelerator() -> bool:
    if sys.platform == "linux":
        return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists() or _wsl()
    return sys.platform == "win32" or platform.machine() == "arm64"


def _wsl() -> bool:
    return Path("/dev/dxg").exists() and "WSL_DISTRO_NAME" in os.environ


def resolve_precision(precision: str, device: str) -> Precision:
    """Say in which arithmetic the network runs.

    ``auto`` is bfloat16 where the device computes in it natively (float16 on older CUDA
    devices), else float32.

    Raises
    ------
    UnknownNameError, OptionError
        For a precision that does not exist, in general or on this device.
    """
    if precision == "auto":
        return _native(device)
    if precision not in get_args(Precision):
        raise UnknownNameError("precision", precision, ("auto", *get_args(Precision)))
    if precision == "float16" and device == "cpu":
        raise OptionError(
            "float16 was asked for on a CPU, where it is slower and coarser than float32. "
            "Use auto, float32 or bfloat16."
        )
    return precision  # type: ignore[return-value]


def _native(device: str) -> Precision:
    if device == "cpu":
        return "bfloat16" if native_bfloat16() else "float32"
    if device.startswith("cuda"):
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "float32"
