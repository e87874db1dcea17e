"""Device and precision: what auto becomes, and what is refused."""

import pytest
import torch

from pipeline.backbones import resolve_device, resolve_precision
from pipeline.backbones.device import native_bfloat16
from pipeline.errors import OptionError, UnknownNameError

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@no_cuda
def test_auto_is_the_cpu_where_there_is_nothing_else():
    assert resolve_device("auto") == resolve_device() == resolve_device("cpu") == "cpu"


@no_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_here_is_refused(device):
    with pytest.raises(OptionError) as error:
        resolve_device(device)
    assert str(error.value) == (
        f"device {device} was asked for, but torch finds none. Use auto or cpu."
    )


@pytest.mark.parametrize("device", ["cdua", "cpu:0", "auto:1", "cuda:x", "cuda:-1", ""])
def test_a_device_that_does_not_exist_is_refused(device):
    with pytest.raises(UnknownNameError) as error:
        resolve_device(device)
    assert str(error.value).startswith(f"unknown device {device!r}.")
    assert str(error.value).endswith(" Accepted: auto, cpu, cuda, mps.")


def test_an_unknown_device_is_refused_with_its_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'cuda'"):
        resolve_device("cdua")


def test_auto_precision_is_what_the_processor_computes_in():
    expected = "bfloat16" if native_bfloat16() else "float32"
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("auto", "mps") == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_was_asked_for_is_kept(precision):
    assert resolve_precision(precision, "cpu") == precision


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(OptionError) as error:
        resolve_precision("float16", "cpu")
    assert str(error.value) == (
        "float16 was asked for on a CPU, where it is slower and coarser than float32. "
        "Use auto, float32 or bfloat16."
    )
    assert resolve_precision("float16", "cuda:0") == "float16"


def test_an_unknown_precision_is_refused_with_its_nearest():
    with pytest.raises(UnknownNameError) as error:
        resolve_precision("float23", "cpu")
    assert str(error.value) == (
        "unknown precision 'float23'. Did you mean 'float32'? "
        "Accepted: auto, float32, bfloat16, float16."
    )
