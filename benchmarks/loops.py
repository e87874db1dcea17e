"""The loops that `extraction.py` compares, each in a process of its own.

Ours in parts (the engine alone, the loader alone, the extraction whose result is dropped),
the loop that everybody writes, and the encoders of other packages, all on the same network.

    python benchmarks/loops.py plain LIST.txt OUT.npz --backbone efficientnet_lite0

reads the photos that LIST names, writes vectors by layer, and prints one JSON object. The
clock runs from the first batch on: imports and the network are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from PIL import Image

from pipeline import SampleSet, load_backbone
from pipeline.backbones import Backbone, Layer, choose_layers, full_name, resolve_precision
from pipeline.extraction import auto_batch_size, extract, forward_of, plan_batches
from pipeline.inputs import load

if TYPE_CHECKING:
    import torch

Vectors = Iterator[dict[str, np.ndarray]]
"""By layer, batch after batch."""

PREPARED = 2048
"""Most pictures that the engine alone is given: they lie in memory, 150 KB each."""


@dataclass(frozen=True)
class Task:
    """What every loop is given."""

    photos: list[Path]
    name: str
    weights: str
    device: str
    precision: str

    @cached_property
    def backbone(self) -> Backbone:
        """Load the network."""
        return load_backbone(self.name, weights=self.weights)

    @cached_property
    def layers(self) -> list[Layer]:
        """Those that ``--layers auto`` takes."""
        taps = self.backbone.layers
        return [taps[name] for name in choose_layers(taps, "auto")]

    def batches(self, size: int) -> list[list[int]]:
        """Cut the photos into batches, by number."""
        return plan_batches(range(len(self.photos)), size)

    def split(self, packed: np.ndarray) -> dict[str, np.ndarray]:
        """Give the layers that lie side by side by name."""
        ends = np.cumsum([layer.width for layer in self.layers])
        pieces = np.split(packed, ends[:-1], axis=1)
        return {layer.name: piece for layer, piece in zip(self.layers, pieces, strict=True)}


def forward(task: Task) -> Vectors:
    """Run the engine alone, on pictures that lie in memory."""
    taps = [layer.name for layer in task.layers]
    preprocess = task.backbone.preprocess
    size = auto_batch_size(task.device)
    batches = task.batches(size)[: PREPARED // size]
    prepared = [loaded.images[preprocess] for loaded in load(task.photos, batches, [preprocess])]

    engine = task.backbone.engine(taps, device=task.device, precision=task.precision)
    engine.embed(prepared[0])

    def running() -> Vectors:
        under_way = deque()
        for batch in prepared:
            under_way.append(engine.begin(batch))
            if len(under_way) >= engine.depth:
                yield task.split(under_way.popleft().result())
        while under_way:
            yield task.split(under_way.popleft().result())

    return running()


def prepare(task: Task) -> Vectors:
    """Run the loader alone."""
    batches = task.batches(auto_batch_size(task.device))
    return ({"": loaded.rows} for loaded in load(task.photos, batches, [task.backbone.preprocess]))


def sink(task: Task) -> Vectors:
    """Run the whole extraction without its writer."""
    samples = SampleSet.from_source(tuple(task.photos))
    precision = resolve_precision(task.precision, task.device)
    spec = task.backbone.spec(precision=precision)
    widths = {full_name(task.name, layer.name): layer.width for layer in task.layers}
    working = forward_of(spec, widths, lambda: task.backbone, device=task.device)
    batches = task.batches(auto_batch_size(task.device))
    extracted = extract(samples, [working], batches)
    return (
        {name.rpartition("/")[2]: values for name, values in batch.layers.items()}
        for batch in extracted
    )


def plain(task: Task) -> Vectors:
    """Do as everybody: DataLoader, PIL, torchvision's transforms, hooks, float32."""
    return _hooked(task, dtype="float32", autocast=False)


def bfloat16(task: Task) -> Vectors:
    """Do the same as one who knows: channels last, the whole network in bfloat16."""
    if resolve_precision("auto", task.device) != "bfloat16":
        raise SystemExit("this processor does not compute in it by itself")
    return _hooked(task, dtype="bfloat16", autocast=False)


def amp(task: Task) -> Vectors:
    """Do the same by autocast, as one does on a GPU."""
    return _hooked(task, dtype="float32", autocast=True)


def _hooked(task: Task, *, dtype: str, autocast: bool) -> Vectors:
    import torch
    from torch.utils.data import DataLoader

    kind, number = task.device.partition(":")[0], getattr(torch, dtype)
    module = task.backbone.network.module.to(task.device, number)
    if autocast or dtype != "float32":
        module = module.to(memory_format=torch.channels_last)
    outputs: dict[str, torch.Tensor] = {}
    for name in {layer.module for layer in task.layers}:
        module.get_submodule(name).register_forward_hook(
            lambda _module, _input, output, name=name: outputs.update({name: output})
        )
    on_gpu = kind != "cpu"
    loader = DataLoader(
        _Photos(task.photos, _transform(task.backbone.preprocess)),
        batch_size=128 if on_gpu else 32,
        num_workers=os.cpu_count() if on_gpu else 2,
        pin_memory=on_gpu,
    )

    def run(batch: torch.Tensor) -> dict[str, np.ndarray]:
        casting = torch.autocast(kind, torch.bfloat16) if autocast else nullcontext()
        with torch.inference_mode(), casting:
            module(batch.to(task.device, number, non_blocking=True))
            pooled = {layer.name: _pooled(layer, outputs[layer.module]) for layer in task.layers}
        return {name: values.cpu().numpy() for name, values in pooled.items()}

    run(torch.zeros((2, 3, *task.backbone.preprocess.image_size)))
    return (run(batch) for batch in loader)


def _pooled(layer: Layer, output: torch.Tensor) -> torch.Tensor:
    output = output.float()
    if layer.axes == "BCHW":
        return output.mean((2, 3))
    if layer.axes == "BTD":
        cls = layer.pooling == "cls"
        return output[:, 0] if cls else output[:, layer.prefix_tokens :].mean(1)
    return output


def _transform(preprocess: Any) -> Callable[[Image.Image], torch.Tensor]:
    from torchvision import transforms

    side = preprocess.resized_side()[0]
    steps = (
        transforms.Resize(side, transforms.InterpolationMode(preprocess.interpolation)),
        transforms.CenterCrop(preprocess.image_size),
        transforms.ToTensor(),
        transforms.Normalize(preprocess.mean, preprocess.std),
    )
    return transforms.Compose(steps)


@dataclass
class _Photos:
    """A data set as torch wants it."""

    paths: list[Path]
    transform: Callable[[Image.Image], torch.Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(_opened(self.paths[row]))


def _opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def embetter(task: Task) -> Vectors:
    """Run embetter's encoder around our network.

    It would take timm's as it comes, in training mode; ours is in evaluation mode.
    """
    from embetter.vision import ImageLoader, TimmEncoder
    from sklearn.pipeline import make_pipeline

    with mock.patch("timm.create_model", return_value=task.backbone.network.module):
        encoder = make_pipeline(ImageLoader(), TimmEncoder())
    batches = task.batches(32)
    return ({"features": encoder.fit_transform([task.photos[row] for row in b])} for b in batches)


def img2vec(task: Task) -> Vectors:
    """Run img2vec's encoder around our network: squashed and resized bilinearly, as is its way."""
    from img2vec_pytorch import Img2Vec
    from torchvision.transforms import v2

    module = task.backbone.network.module
    if not hasattr(module, "bn2"):
        raise SystemExit("set up here for the EfficientNets of timm only")

    class OurNetwork(Img2Vec):
        def _get_model_and_layer(self, model: str, layer: str) -> tuple[Any, Any]:
            return module, module.bn2

    encoder = OurNetwork(task.device != "cpu", "efficientnet", layer_output_size=1280)
    preprocess = task.backbone.preprocess
    encoder.transforms.transforms[-1] = v2.Normalize(preprocess.mean, preprocess.std)
    return (
        {"features": encoder.get_vec([_opened(task.photos[row]) for row in batch])}
        for batch in task.batches(32)
    )


def thingsvision(task: Task) -> Vectors:
    """Say why it is not compared."""
    raise SystemExit(
        "version 2.7.3 pins torchvision 0.15.2, numpy < 2 and tensorflow < 2.16: it cannot be "
        "installed beside this program"
    )


LOOPS = {
    loop.__name__: loop
    for loop in (
        forward, prepare, sink, plain, bfloat16, amp, embetter, img2vec, thingsvision,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("photos", type=Path, help="a text file with a path on each line")
    parser.add_argument("out", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    photos = [Path(line) for line in given.photos.read_text().splitlines()]
    task = Task(photos, given.backbone, given.weights, given.device, given.precision)
    batches = LOOPS[given.loop](task)
    began = time.perf_counter()
    found = list(batches)
    seconds = time.perf_counter() - began
    vectors = {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}
    rows = len(next(iter(vectors.values())))
    vectors.pop("", None)  # the loader has none
    np.savez(given.out, **vectors)
    print(json.dumps({"images_per_second": rows / seconds, "rows": rows, "seconds": seconds}))


if __name__ == "__main__":
    main()
