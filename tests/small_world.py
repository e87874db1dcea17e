"""Small networks, pictures in files, and their embeddings by hand: PIL, plain hooks, numpy."""

import functools
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import nn

from pipeline.backbones import Backbone, Layer, load_backbone
from pipeline.backbones.engines.torch_engine import TorchEngine
from pipeline.backbones.network import Network
from pipeline.backbones.own import own_network
from pipeline.inputs import prepare
from pipeline.spec import Preprocessing

PREPROCESS = Preprocessing((32, 32), crop_fraction=0.8, mean=(0.5,) * 3, std=(0.25,) * 3)
WIDTHS = {"low": 4, "high": 6, "top": 3}


class SmallNet(nn.Module):
    """Two maps and a vector."""

    def __init__(self, seed: int = 0, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.low = nn.Conv2d(3, width, 3, stride=2)
        self.high = nn.Conv2d(width, 6, 3, stride=2)
        self.top = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.high(torch.relu(self.low(x)))
        return self.top(torch.relu(x).mean(dim=(2, 3)))


def small_network(seed: int = 0) -> Network:
    return own_network(SmallNet(seed), list(WIDTHS), PREPROCESS)


@functools.cache
def small_backbone(seed: int = 0, name: str = "small", **options) -> Backbone:
    """A backbone of the module above, built once: so is its engine."""
    given = {"layers": list(WIDTHS), "preprocess": PREPROCESS, **options}
    return load_backbone(SmallNet(seed), name=name, **given)


class EagerBackbone(Backbone):
    """Runs at once: making the CPU engine of a network takes seconds in a new process."""

    def engine(self, layers="all", **_):
        taps = self.layers if layers == "all" else layers
        return TorchEngine(self.network, [self.layers[tap] for tap in taps], "cpu", "float32")


def pixels(seed: int, height: int = 40, width: int = 52) -> np.ndarray:
    """A picture without symmetry, of soft and hard edges."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_pictures(folder: Path, seeds: dict[str, int] | list[int]) -> Path:
    """Write pictures as PNG files, by name and seed."""
    if not isinstance(seeds, dict):
        seeds = {name_of(seed): seed for seed in seeds}
    for name, seed in seeds.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(path, "PNG")
    return folder


def name_of(seed: int) -> str:
    return f"{'ab'[seed % 2]}/{seed:03}.png"


def by_hand(backbone: Backbone, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Layers of decoded pictures, one at a time, with nothing but torch: float32 (n, width)."""
    module, spec = backbone.network.module.eval(), backbone.preprocess
    rows: dict[str, list[np.ndarray]] = {tap: [] for tap in backbone.layers}
    for picture in pictures:
        out = np.zeros((*spec.image_size, 3), np.uint8)
        prepare(np.array(picture), spec, out)
        scaled = (torch.from_numpy(out).float() / 255 - torch.tensor(spec.mean)) / torch.tensor(
            spec.std
        )
        outputs: dict[str, torch.Tensor] = {}
        handles = [
            module.get_submodule(layer.module).register_forward_hook(
                functools.partial(_keep, outputs, tap)
            )
            for tap, layer in backbone.layers.items()
        ]
        with torch.no_grad():
            module(scaled.permute(2, 0, 1)[None])
        for handle in handles:
            handle.remove()
        for tap, layer in backbone.layers.items():
            rows[tap].append(_pooled(outputs[tap], layer)[0].numpy())
    return {tap: np.array(values) for tap, values in rows.items()}


def _pooled(output: torch.Tensor, layer: Layer) -> torch.Tensor:
    if output.ndim == 4:
        return output.amax((2, 3)) if layer.pooling == "max" else output.mean((2, 3))
    if output.ndim == 3:
        patches = output[:, layer.prefix_tokens :].mean(1)
        return output[:, 0] if layer.pooling == "cls" else patches
    return output


def _keep(outputs, tap, _module, _inputs, output):
    outputs.setdefault(tap, output)


def raw(cache: Path) -> dict[str, np.ndarray]:
    """Everything in a cache that must not depend on how it came about, read by h5py alone."""
    found = {}
    with h5py.File(cache) as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset) and not name.startswith(("failed", "inputs")):
                found[name] = item[()]

        file.visititems(visit)
        found["inputs/digest"] = file["inputs"]["digest"]
        found["layers"] = np.array(file.attrs["layers"])
    return found


def assert_same_cache(ours: Path, theirs: Path) -> None:
    """Bit for bit, in layers, ids, targets, digests and checksums."""
    left, right = raw(ours), raw(theirs)
    assert left.keys() == right.keys()
    for name, values in left.items():
        assert values.dtype == right[name].dtype, name
        assert values.tobytes() == right[name].tobytes() or (values == right[name]).all(), name


def ids_in(cache: Path) -> list[str]:
    with h5py.File(cache) as file:
        return file["ids"].asstr()[()].tolist()


def layer_in(cache: Path, layer: str) -> np.ndarray:
    with h5py.File(cache) as file:
        return file[f"layers/{layer}"][()]


def set_back(path: Path, seconds: int = 100) -> None:
    """Give a file an older date."""
    then = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(then, then))


def environment() -> dict[str, str]:
    """For children that must find this folder and the package."""
    here = Path(__file__).parent
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent), str(here), *sys.path])}
