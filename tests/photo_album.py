"""Photos of three kinds of sky, easily told apart, in folders and as arrays."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = {"dawn": (220, 120, 60), "noon": (90, 150, 230), "night": (15, 15, 45)}


def sky(kind: str, seed: int) -> np.ndarray:
    """One photo of 40 x 44 pixels: the colour of its kind, with soft noise."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    noise = rng.integers(-25, 26, (40, 44, 3))
    return np.clip(np.array(KINDS[kind]) + noise, 0, 255).astype(np.uint8)


def write_album(folder: Path, each: int = 8, kinds: tuple[str, ...] = tuple(KINDS)) -> Path:
    """Write photos into one folder per kind."""
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for seed in range(each):
            Image.fromarray(sky(kind, seed)).save(folder / kind / f"{seed}.png")
    return folder


def skies(each: int = 8) -> tuple[np.ndarray, list[str]]:
    """Photos and kinds, by kind: uint8 of shape (3 * each, 40, 44, 3)."""
    labels = [kind for kind in KINDS for _ in range(each)]
    return np.stack([sky(kind, place % each) for place, kind in enumerate(labels)]), labels


@functools.cache
def tiny_state() -> dict:
    """Random weights of timm's smallest ResNet."""
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model("test_resnet", pretrained=False).state_dict()


def write_tiny_weights(path: Path) -> Path:
    from safetensors.torch import save_file

    save_file(tiny_state(), path)
    return path
