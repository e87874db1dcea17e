"""Striped pictures, a small network, and models of it that can be tuned."""

import tempfile
from pathlib import Path

import numpy as np
from small_world import EagerBackbone
from tiny_networks import SQUARE, ThreeBlocks

from pipeline.backbones import load_backbone
from pipeline.backbones.own import own_network
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.embedding import embed
from pipeline.inputs import prepare
from pipeline.model import TransferModel
from pipeline.samples import SampleSet
from pipeline.training import train

TAPS = ["low", "middle", "high", "top"]
SLANTS = {"flat": 0.0, "left": np.pi / 3, "right": 2 * np.pi / 3}


def stripe(row: int, kind: str, strength: float = 30) -> np.ndarray:
    """A picture of 32 x 32 pixels: slanted stripes under noise, which few see at once."""
    rng = np.random.default_rng([row, list(SLANTS).index(kind)])
    down, right = np.mgrid[:32, :32]
    along = right * np.cos(SLANTS[kind]) + down * np.sin(SLANTS[kind])
    wave = np.sin(along * np.pi / 3 + rng.uniform(0, 6.28))[..., None]
    noise = rng.normal(0, 50, (32, 32, 3)) + rng.uniform(-40, 40, 3)
    return np.clip(128 + strength * wave + noise, 0, 255).astype(np.uint8)


def slants(n: int) -> list[str]:
    """Kinds of rows in turn."""
    return [list(SLANTS)[row % 3] for row in range(n)]


def striped(n: int, strength: float = 30, **columns) -> SampleSet:
    """Pictures in memory, with their kinds or with columns of your own."""
    pictures = [stripe(row, kind, strength) for row, kind in enumerate(slants(n))]
    ids = [f"{row:03}" for row in range(n)]
    return SampleSet.from_list(pictures, columns or {"label": slants(n)}, ids=ids)


def three_blocks() -> EagerBackbone:
    return EagerBackbone("own", own_network(ThreeBlocks(), TAPS, SQUARE))


def tiny(name: str) -> EagerBackbone:
    """One of timm's smallest networks, for pictures of 32 x 32 pixels."""
    own = load_backbone(f"timm/test_{name}", weights=None, image_size=32)
    return EagerBackbone(own.name, own.network, own.pooling)


def prepared(pictures, preprocess) -> np.ndarray:
    """Pictures as a network gets them."""
    out = np.zeros((len(pictures), *preprocess.image_size, 3), np.uint8)
    for picture, slot in zip(pictures, out, strict=True):
        prepare(np.array(picture), preprocess, slot)
    return out


def model_of(samples: SampleSet, backbone=None, **options) -> TransferModel:
    """Embed with a small network, exactly, and train on all of its layers."""
    backbone = backbone or three_blocks()
    given = {"head": "ridge", "fusion": "concat", **options}
    exactly = EmbedOptions(precision="float32", store_dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        store = embed(samples, backbone, Path(folder, "cache.h5"), options=exactly)
        model = train(store, TrainOptions(**given))
        store.close()
    model.given = {backbone.name: backbone}
    return model
