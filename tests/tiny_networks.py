"""Small networks, pictures, and an independent forward pass to compare with."""

from functools import cache

import numpy as np
import torch
from torch import nn

from pipeline.backbones import load_backbone
from pipeline.backbones.engines.torch_engine import TorchEngine
from pipeline.spec import Preprocessing

SQUARE = Preprocessing(image_size=(32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


class ThreeBlocks(nn.Module):
    """Three convolutions and a linear layer; the upper half can be forbidden to run."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.low = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU())
        self.top = nn.Linear(16, 5)
        self.forbidden = False
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, pictures):
        maps = self.middle(self.low(pictures))
        if self.forbidden:
            raise AssertionError("the upper half was computed")
        return self.top(self.high(maps).mean((2, 3)))


@cache
def random_backbone(name):
    """A backbone with random weights; shared, for its conversion takes a second."""
    return load_backbone(name, weights=None)


def pictures(count, size=(32, 32), seed=0):
    """Pictures of 8 bits that differ in texture and in brightness."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (count, *size, 3))
    light = generator.uniform(0.1, 1.0, (count, 1, 1, 3))
    return (noise * light).astype(np.uint8)


def normalised(batch, preprocess):
    """Numbers that a network takes, ``(batch, 3, height, width)``, by plain numpy."""
    scaled = batch.astype(np.float64) / 255
    values = (scaled - np.array(preprocess.mean)) / np.array(preprocess.std)
    return torch.from_numpy(values.transpose(0, 3, 1, 2).astype(np.float32))


def outputs_of(module, names, inputs):
    """Outputs of submodules by hooks, without any of our code."""
    found = {}
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found.update({name: output.float().numpy()})
        )
        for name in names
    ]
    with torch.no_grad():
        module.eval()(inputs)
    for handle in handles:
        handle.remove()
    return found


def split(packed, layers):
    """The columns of every layer."""
    ends = np.cumsum([layer.width for layer in layers.values()])
    return dict(zip(layers, np.split(packed, ends[:-1], axis=1), strict=True))


def cosines(ours, theirs):
    """Cosine of every row of two matrices, in float64."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return (ours * theirs).sum(1) / lengths


def eager(backbone, precision="float32", layers=None):
    """Torch's engine for a backbone, whatever serves on this machine."""
    chosen = [backbone.layers[name] for name in layers or backbone.layers]
    return TorchEngine(backbone.network, chosen, "cpu", precision)
