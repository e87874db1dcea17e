"""Accuracy on Fashion-MNIST: all layers fused against the last layer alone.

The data come from Debian's package: ``apt-get install dataset-fashion-mnist``. This script
installs and downloads nothing.

    python benchmarks/accuracy.py            6,000 train / 2,000 test, a few minutes
    python benchmarks/accuracy.py --full     60,000 / 10,000, the better part of an hour
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pipeline import EmbeddingStore, SampleSet, embed, train
from pipeline.config import EmbedOptions, TrainOptions

DATA = Path("/usr/share/datasets/fashion-mnist")
RESULTS = Path(__file__).parent / "results"
NAMES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
         "Boot")  # fmt: skip
COMPARED = (("last", "ridge"), ("average", "ridge"), ("concat", "ridge"),
            ("last", "logistic"), ("concat", "logistic"))  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """Read a file of the MNIST format: big-endian sizes, then bytes."""
    with gzip.open(path) as file:
        content = file.read()
    n_axes = content[3]
    shape = np.frombuffer(content, ">i4", n_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def samples_of(full: bool) -> SampleSet:
    """Give the first rows of both parts, in their original order, with the split as given."""
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing. On Debian: apt-get install dataset-fashion-mnist")
    sizes = (60_000, 10_000) if full else (6_000, 2_000)
    images, labels, split, ids = [], [], [], []
    for part, name, size in zip(("train", "t10k"), ("train", "test"), sizes, strict=True):
        images.append(read_idx(DATA / f"{part}-images-idx3-ubyte.gz")[:size])
        codes = read_idx(DATA / f"{part}-labels-idx1-ubyte.gz")[:size]
        labels += [NAMES[code] for code in codes]
        split += [name] * size
        ids += [f"{name}/{row:05d}" for row in range(size)]
    columns = {"label": labels, "split": split}
    return SampleSet.from_arrays(np.concatenate(images), columns, ids=ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("fashion.h5"))
    arguments = parser.parse_args()
    began = time.perf_counter()
    options = EmbedOptions(image_size=128, resize="squash", precision="float32")
    store: EmbeddingStore = embed(
        samples_of(arguments.full), "efficientnet_lite0", arguments.cache,
        options=options, progress=True,
    )  # fmt: skip
    embedded = time.perf_counter() - began
    rows = []
    for fusion, head in COMPARED:
        started = time.perf_counter()
        chosen = TrainOptions(target="label", split_column="split", fusion=fusion, head=head)
        results = train(store, chosen).results["label"]
        rows.append(
            {
                "fusion": fusion,
                "head": head,
                **{name: results.figures[name] for name in ("accuracy", "log_loss", "ece")},
                "cv_accuracy": results.fusions[0].score["accuracy"],
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        print(rows[-1], flush=True)
    found = {
        "benchmark": "accuracy on Fashion-MNIST, 128 px, efficientnet_lite0",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()}, {len(store)} images embedded on a CPU",
        "versions": {name: version(name) for name in ("torch", "openvino", "scikit-learn", "timm")},
        "rows": {"train": int(sum(p == "train" for p in store.targets["split"].values)),
                 "test": int(sum(p == "test" for p in store.targets["split"].values))},
        "embed_seconds": round(embedded, 1),
        "heads": rows,
    }  # fmt: skip
    name = "accuracy-full.json" if arguments.full else "accuracy.json"
    (RESULTS / name).write_text(json.dumps(found, indent=2) + "\n")
    concat = max(row["accuracy"] for row in rows if row["fusion"] == "concat")
    last = max(row["accuracy"] for row in rows if row["fusion"] == "last")
    print(f"all layers {concat:.4f}, last layer alone {last:.4f}")


if __name__ == "__main__":
    main()
