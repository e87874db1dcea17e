"""Engines: the same numbers whatever the batch, torch's numbers whatever the engine."""

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import SQUARE, ThreeBlocks, cosines, eager, pictures, random_backbone
from torch import nn

from pipeline.backbones import EngineMemoryError, load_backbone
from pipeline.backbones.device import native_bfloat16
from pipeline.errors import BackboneError, InputError
from pipeline.spec import Preprocessing


class GroupNormed(nn.Module):
    """Its kernels add up in another order for a batch of one."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, 64, 4, 4)
        self.norm = nn.GroupNorm(1, 64)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)

    def forward(self, pictures):
        return self.norm(self.conv(pictures).relu())


def own(module, layers, size=(32, 32)):
    return load_backbone(module, layers=layers, preprocess=Preprocessing(image_size=size))


def networks():
    yield "timm/test_resnet", lambda: random_backbone("timm/test_resnet")
    yield "timm/test_vit", lambda: random_backbone("timm/test_vit")
    yield "group norm", lambda: own(GroupNormed(), ["conv", "norm"], (96, 96))


@pytest.mark.parametrize("make", [make for _, make in networks()], ids=[n for n, _ in networks()])
def test_vectors_do_not_depend_on_batch_size_position_or_neighbours(make):
    backbone = make()
    batch = pictures(16, backbone.preprocess.image_size)
    engine = backbone.engine(precision="float32")
    assert engine.name == "openvino"
    whole = engine.embed(batch)
    for size in (1, 7, 16):
        pieces = [engine.embed(batch[start : start + size]) for start in range(0, 16, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole, err_msg=f"batch of {size}")
    np.testing.assert_array_equal(engine.embed(batch[::-1].copy())[::-1], whole)
    torchs = eager(backbone)
    for size in (1, 7, 16):
        np.testing.assert_allclose(torchs.embed(batch[:size]), whole[:size], rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not native_bfloat16(), reason="this processor has no bfloat16")
def test_native_bfloat16_does_not_depend_on_the_batch_either():
    backbone = random_backbone("timm/test_vit")
    batch = pictures(7, backbone.preprocess.image_size)
    engine = backbone.engine(precision="bfloat16")
    assert engine.name == "openvino"
    whole = engine.embed(batch)
    np.testing.assert_array_equal(np.concatenate([engine.embed(one[None]) for one in batch]), whole)
    assert cosines(whole, backbone.embed(batch)).min() > 0.995


@pytest.mark.skipif(native_bfloat16(), reason="this processor computes in bfloat16")
def test_bfloat16_where_the_processor_has_none_is_true_bfloat16_and_said(caplog):
    backbone = own(ThreeBlocks(), ["low", "high"])
    engine = backbone.engine(precision="bfloat16")
    assert engine.name == "eager"
    assert caplog.messages == ["this processor has no bfloat16 of its own: float32 would be faster"]
    vectors = engine.embed(pictures(3))
    exact = backbone.embed(pictures(3))
    assert 0 < np.abs(vectors - exact).max() < 0.05 * np.abs(exact).max()


def test_an_engine_is_made_once():
    backbone = own(ThreeBlocks(), ["low", "high"])
    assert backbone.engine("low", precision="float32") is backbone.engine(
        ["low"], device="cpu", precision="float32"
    )
    assert backbone.engine("high", precision="float32") is not backbone.engine(precision="float32")


def test_no_pictures_give_no_vectors():
    backbone = own(ThreeBlocks(), ["low", "high"])
    assert backbone.embed(pictures(0)).shape == (0, 24)


def test_conversion_is_silent(capfd, caplog):
    own(ThreeBlocks(), ["low", "high"]).engine(precision="float32")
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


class Branching(ThreeBlocks):
    """What it computes depends on the pictures: a trace would keep one of the branches."""

    def forward(self, pictures):
        maps = self.low(pictures)
        return maps if pictures.mean() > 0 else -maps


class Folded(ThreeBlocks):
    """It takes the batch for a number: a trace would keep that number."""

    def forward(self, pictures):
        maps = self.low(pictures).flatten(1)
        return maps.reshape(int(pictures.shape[0]), 8, 256).permute(0, 2, 1)


class Eigenvalues(nn.Module):
    """OpenVINO has no such operation."""

    def forward(self, pictures):
        return torch.linalg.eigvalsh(pictures.mean(1) + pictures.mean(1).mT)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Branching(), "it gives other numbers for 0"),
        (Folded(), "the shape of input data"),
        (Eigenvalues(), "No conversion rule found for operations: aten::linalg_eigvalsh"),
    ],
    ids=["branch", "fixed batch", "unknown operation"],
)
def test_a_network_that_cannot_be_converted_runs_in_torch_and_that_is_said(module, reason, caplog):
    backbone = own(nn.Sequential(module), ["0"])
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    engine = backbone.engine(precision="float32")
    assert engine.name == "eager"
    (message,) = caplog.messages
    assert message.startswith("openvino cannot convert this network (")
    assert reason in message
    assert message.endswith("): eager torch serves")
    assert engine.embed(pictures(5)).shape == (5, sum(n.width for n in backbone.layers.values()))
    assert (root.level, root.filters, root.handlers) == before


def test_a_network_that_fails_in_torch_too_fails_with_its_own_error():
    module = ThreeBlocks()
    backbone = own(module, ["low", "high"])
    module.forbidden = True
    with pytest.raises(AssertionError, match="the upper half was computed"):
        backbone.engine(precision="float32")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_of_the_caller_stays_as_it_is(precision):
    module = ThreeBlocks()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    backbone = own(module, ["low", "high"])
    eager(backbone, precision)
    for name, tensor in module.state_dict().items():
        assert tensor.is_contiguous()
        assert torch.equal(tensor, before[name])
        assert not tensor.is_inference()
    assert not module._forward_hooks


def test_a_backbone_pickles_without_its_engines():
    backbone = own(ThreeBlocks(), ["low", "high"])
    vectors = backbone.embed(pictures(2))
    copy = pickle.loads(pickle.dumps(backbone))
    assert copy.spec() == backbone.spec()
    np.testing.assert_array_equal(copy.embed(pictures(2)), vectors)


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (pictures(2, (32, 31)), "uint8 of shape (2, 32, 31, 3)"),
        (pictures(2)[0], "uint8 of shape (32, 32, 3)"),
        (pictures(2).astype(np.float32), "float32 of shape (2, 32, 32, 3)"),
    ],
)
def test_a_batch_of_another_shape_or_type_is_refused(batch, got):
    backbone = load_backbone(ThreeBlocks(), layers=["low"], preprocess=SQUARE, name="mine")
    with pytest.raises(InputError) as error:
        backbone.embed(batch)
    assert str(error.value) == (
        f"a batch for mine must be uint8 of shape (batch, 32, 32, 3), but this one is {got}. "
        "Resize its pictures as backbone.preprocess says, and do not normalise them."
    )


def test_without_openvino_torch_serves_with_the_same_numbers_and_says_so(tmp_path):
    program = """
import sys
sys.modules["openvino"] = None
import logging, numpy
logging.basicConfig(format="%(message)s")
from tiny_networks import SQUARE, ThreeBlocks, pictures
from pipeline.backbones import load_backbone, resolve_precision
backbone = load_backbone(ThreeBlocks(), layers=["low", "high"], preprocess=SQUARE)
engine = backbone.engine(precision="float32")
numpy.save(sys.argv[1], engine.embed(pictures(2)))
print(engine.name, resolve_precision("auto", "cpu"))
"""
    out = tmp_path / "vectors.npy"
    here = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(out)],
        capture_output=True, text=True, check=True, env=os.environ | here,
    )  # fmt: skip
    assert done.stdout.split() == ["eager", "float32"]
    assert done.stderr.strip() == (
        "openvino cannot be imported: the slower eager engine of torch serves"
    )
    backbone = load_backbone(ThreeBlocks(), layers=["low", "high"], preprocess=SQUARE)
    assert cosines(np.load(out), backbone.embed(pictures(2))).min() > 0.999_999


class Failing(ThreeBlocks):
    """Raises what a device raises."""

    error: Exception | None = None

    def forward(self, pictures):
        if self.error is not None:
            raise self.error
        return super().forward(pictures)


def failing(error):
    backbone = own(Failing(), ["low", "high"])
    engine = eager(backbone)
    engine._graph.module.error = error
    return engine


def test_a_device_that_vanishes_is_an_error_that_says_how_to_go_on():
    engine = failing(torch.AcceleratorError("CUDA error: device-side assert triggered"))
    with pytest.raises(BackboneError) as error:
        engine.embed(pictures(2))
    assert str(error.value) == (
        "the device cpu stopped working: CUDA error: device-side assert triggered. What is "
        "finished is kept: give the same command again, or --device cpu."
    )


def test_a_device_without_memory_is_told_apart_so_that_smaller_batches_are_tried():
    with pytest.raises(EngineMemoryError, match="CUDA out of memory"):
        failing(torch.OutOfMemoryError("CUDA out of memory")).embed(pictures(2))


def test_a_processor_without_memory_is_told_apart_too():
    program = """
import resource, sys
import numpy as np
from tiny_networks import random_backbone
from pipeline.backbones import EngineMemoryError
engine = random_backbone("timm/test_resnet").engine(device="cpu", precision="float32")
engine.embed(np.zeros((2, 160, 160, 3), np.uint8))
pictures = np.zeros((600, 160, 160, 3), np.uint8)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, resource.RLIM_INFINITY))
try:
    engine.begin(pictures).result()
except EngineMemoryError:
    print("told apart")
"""
    here = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, env=os.environ | here,
    )  # fmt: skip
    assert done.stdout.strip() == "told apart", done.stderr


def test_several_batches_may_be_under_way_and_each_gives_its_own_vectors():
    backbone = random_backbone("timm/test_resnet")
    engine = backbone.engine(precision="float32")
    batches = [pictures(3, backbone.preprocess.image_size, seed) for seed in range(8)]
    running = [engine.begin(batch) for batch in batches]
    for batch, one in reversed(list(zip(batches, running, strict=True))):
        np.testing.assert_array_equal(one.result(), engine.embed(batch))
