"""Every entry of every registry works; whoever adds one gets its test by adding it."""

import numpy as np
import pytest
import torch

from pipeline.backbones import BACKBONES, Layer, describe
from pipeline.pooling import POOLINGS, pool, pooled_width, resolve_pooling
from pipeline.spec import EmbeddingSpec


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name):
    entry = BACKBONES[name]
    spec = describe(name, precision="float32")
    assert spec.backbone == name
    assert spec.preprocess == entry.preprocess
    assert len(bytes.fromhex(entry.weights_digest)) == 16
    assert EmbeddingSpec.from_json(spec.to_json()) == spec
    pooling, layers = entry.layers("auto")
    assert pooling == "mean"
    for layer_name, layer in layers.items():
        assert isinstance(layer, Layer)
        assert layer.name == layer_name
        assert not set("/,") & set(layer_name)
        assert layer.width > 0
    assert entry.summary
    assert "\n" not in entry.summary
    assert entry.package.isidentifier()


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling(name):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 17, 6, generator=generator)
    vectors = pool(tokens, "BTD", name, prefix_tokens=1)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (2, pooled_width(6, name))
    assert np.isfinite(vectors.numpy()).all()
    torch.testing.assert_close(pool(tokens[1:], "BTD", name, prefix_tokens=1), vectors[1:])
    assert resolve_pooling(name, class_token=True) == name
    assert not set("/,") & set(name)
