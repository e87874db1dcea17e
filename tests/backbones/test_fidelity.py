"""The gate: an engine whose numbers are not torch's is not used, and that is said."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import SQUARE, ThreeBlocks, cosines, pictures
from torch import nn

from pipeline.backbones import load_backbone
from pipeline.backbones.engines.fidelity import (
    LEAST,
    Reference,
    agreement,
    probe_pictures,
    unlike,
)
from pipeline.backbones.engines.torch_engine import TorchEngine


@given(st.integers(0, 2**32), st.floats(0.1, 10), st.floats(0, 1))
def test_agreement_is_at_most_the_cosine_and_counts_length(seed, scale, noise):
    random = np.random.default_rng(seed)
    ours = random.normal(size=(3, 5))
    theirs = scale * ours + noise * random.normal(size=(3, 5))
    found = agreement(ours, theirs)
    assert found <= max(cosines(ours.reshape(1, -1), theirs.reshape(1, -1))[0], 0) + 1e-9
    assert agreement(ours, ours) == 1
    assert agreement(ours, scale * ours) == pytest.approx(2 * scale / (1 + scale**2))
    assert agreement(np.zeros((0, 5)), np.zeros((0, 5))) == 1


def test_what_is_not_a_number_agrees_with_nothing_and_zeros_with_zeros():
    zeros, broken = np.zeros((2, 3)), np.full((2, 3), np.nan)
    assert agreement(zeros, zeros) == 1
    assert agreement(zeros, zeros + 1e-9) == 0
    assert np.isnan(agreement(broken, zeros))
    assert agreement(zeros, broken) == 1  # where torch gives no number, nothing is told
    assert unlike({"low": agreement(broken, zeros)}, "float32") == (
        "it gives other numbers for low: they agree to nan, and 0.999 is asked for"
    )


def test_16_bits_may_be_coarser_than_32():
    assert unlike({"low": 0.997}, "float32").startswith("it gives other numbers for low")
    assert unlike({"low": 0.997}, "bfloat16") is None
    assert LEAST == {"float32": 0.999, "bfloat16": 0.995, "float16": 0.995}


def test_the_probes_differ_in_texture_and_in_brightness():
    found = probe_pictures((40, 50))
    assert (found.shape, found.dtype) == ((5, 40, 50, 3), np.uint8)
    assert found.mean() > 127
    assert np.ptp(found.mean(axis=(1, 2, 3))) > 120
    assert (found.std(axis=(1, 2, 3)) > 15).all()


def test_a_reference_tells_which_layer_of_an_engine_is_off():
    backbone = load_backbone(ThreeBlocks(), layers=["low", "high"], preprocess=SQUARE)
    layers = list(backbone.layers.values())
    twisted = load_backbone(ThreeBlocks(), layers=["low", "high"], preprocess=SQUARE).network
    nn.init.normal_(twisted.module.high[0].weight)
    found = Reference(backbone.network, layers, "cpu").agreements(
        TorchEngine(twisted, layers, "cpu", "float32")
    )
    assert found["low"] == pytest.approx(1, abs=1e-9)
    assert found["high"] < 0.999


class Cancelling(nn.Module):
    """A small difference of large numbers: 16 bits lose all of it."""

    def forward(self, pictures):
        maps = pictures.float() * 0.001
        return (maps.to(pictures.dtype) + 100) - 100


def test_a_network_that_16_bits_ruin_runs_in_them_when_asked_and_that_is_said(caplog):
    backbone = load_backbone(nn.Sequential(Cancelling()), layers=["0"], preprocess=SQUARE)
    assert backbone.engine(precision="float32").embed(pictures(2)).shape == (2, 3)
    caplog.clear()
    assert backbone.engine(precision="bfloat16").name == "eager"
    message = caplog.messages[-1]
    assert message.startswith("bfloat16 loses much (it gives other numbers for 0: they agree to ")
    assert message.endswith("): --precision float32 does not")


@pytest.mark.pretrained
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_the_bundled_networks_pass_the_gate_in_16_bits(name):
    backbone = load_backbone(name)
    layers = list(backbone.layers.values())
    found = Reference(backbone.network, layers, "cpu").agreements(
        TorchEngine(backbone.network, layers, "cpu", "bfloat16")
    )
    assert unlike(found, "bfloat16") is None


def test_torch_is_compiled_without_its_hooks_for_batches_filled_up_to_one_size():
    backbone = load_backbone(ThreeBlocks(), layers=["low", "high"], preprocess=SQUARE)
    layers = list(backbone.layers.values())
    plain = TorchEngine(backbone.network, layers, "cpu", "float32")
    compiled = TorchEngine(backbone.network, layers, "cpu", "float32", compiled=True)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(suppress_errors=False):
        for count in (6, 4, 1, 6, 8):
            np.testing.assert_allclose(
                compiled.embed(pictures(count)), plain.embed(pictures(count)), rtol=1e-3, atol=1e-5
            )
    assert compiled.embed(pictures(0)).shape == (0, 24)
    assert compiled.name == "compiled"
