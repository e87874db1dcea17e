"""The whole way from a photo to its vectors, against timm's own preprocessing with PIL."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import load_backbone
from pipeline.inputs import load


@pytest.mark.pretrained
def test_vectors_of_photos_are_those_of_timms_own_preprocessing():
    import skimage
    import timm
    import torch

    folder = Path(skimage.__file__).parent / "data"
    photos = [folder / name for name in ("coffee.png", "camera.png", "chelsea.png", "moon.png")]
    photos = [photo for photo in photos if photo.is_file()]
    assert photos
    backbone = load_backbone("efficientnet_lite0")
    (loaded,) = load(photos, [range(len(photos))], [backbone.preprocess])
    ours = backbone.embed(loaded.images[backbone.preprocess])

    network = backbone.network.module
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    batch = torch.stack([transform(Image.open(photo).convert("RGB")) for photo in photos])
    maps = {}
    for stage, block in enumerate(network.blocks):
        block.register_forward_hook(
            lambda _module, _inputs, output, stage=stage: maps.__setitem__(stage, output)
        )
    with torch.no_grad():
        features = network(batch)
    theirs = [maps[stage].mean((2, 3)).numpy() for stage in range(7)] + [features.numpy()]

    start = 0
    for layer, expected in zip(backbone.layers.values(), theirs, strict=True):
        found = ours[:, start : start + layer.width]
        start += layer.width
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((found * expected).sum(axis=1) / lengths).min() >= 0.999, layer.name
