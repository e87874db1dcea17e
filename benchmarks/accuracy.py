"""Accuracy of heads on cached features: all layers against the last, before and after calibration.

Fashion-MNIST comes from Debian's package: ``apt-get install dataset-fashion-mnist``; the digits
come with scikit-learn. This script installs and downloads nothing.

    python benchmarks/accuracy.py            6,000 train / 10,000 test, a quarter of an hour
    python benchmarks/accuracy.py --full     60,000 / 10,000, the better part of an hour
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
from findings import Sheet, timed
from layer_noise import noise
from measuring import RESULTS, write_results
from sklearn.datasets import load_digits

from pipeline import EmbeddingStore, SampleSet, TransferModel, embed, train
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.heads.temperature import softmax
from pipeline.results import calibration_error

DATA = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
         "Boot")  # fmt: skip
COMPARED = (("last", "ridge"), ("average", "ridge"), ("concat", "ridge"), ("last", "logistic"),
            ("concat", "logistic"), ("auto", "auto"))  # fmt: skip
OPTIONS = EmbedOptions(image_size=128, resize="squash", precision="float32")


def read_idx(path: Path) -> np.ndarray:
    """Read a file of the MNIST format: big-endian sizes, then bytes."""
    with gzip.open(path) as file:
        content = file.read()
    n_axes = content[3]
    shape = np.frombuffer(content, ">i4", n_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def fashion(n_train: int) -> SampleSet:
    """Give the first rows to train on and all test rows, in their original order."""
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing. On Debian: apt-get install dataset-fashion-mnist")
    images, labels, split, ids = [], [], [], []
    for part, name, size in zip(("train", "t10k"), ("train", "test"), (n_train, 10_000),
                                strict=True):  # fmt: skip
        images.append(read_idx(DATA / f"{part}-images-idx3-ubyte.gz")[:size])
        codes = read_idx(DATA / f"{part}-labels-idx1-ubyte.gz")[:size]
        labels += [NAMES[code] for code in codes]
        split += [name] * size
        ids += [f"{name}/{row:05d}" for row in range(size)]
    columns = {"label": labels, "split": split}
    return SampleSet.from_arrays(np.concatenate(images), columns, ids=ids)


def digits() -> SampleSet:
    """Give scikit-learn's 1,797 digits of 8 by 8 pixels: the first 1,000 to train on."""
    pixels, codes = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    split = ["train" if row < 1000 else "test" for row in range(len(images))]
    return SampleSet.from_arrays(
        images,
        {"label": [str(code) for code in codes], "split": split},
        ids=[f"{row:04d}" for row in range(len(images))],
    )


def compared(store: EmbeddingStore, title: str, least: float | None) -> Sheet:
    """Train what is compared on the same rows, and measure on the same held-out rows."""
    parts = np.asarray(store.targets["split"].values)
    sheet = Sheet(f"{title}, {(parts == 'train').sum():,} train, {(parts == 'test').sum():,} test")
    figures: dict[str, dict[str, float]] = {}
    for fusion, head in COMPARED:
        chosen = TrainOptions(target="label", split_column="split", fusion=fusion, head=head)
        model, seconds = timed(lambda chosen=chosen: train(store, chosen))
        results = model.results["label"]
        own = {name: results.figures[name] for name in ("accuracy", "log_loss", "ece")}
        figures[f"{fusion}+{head}"] = own
        before = raw_calibration_error(store, model, parts == "test")
        by = results.fusions[0].by
        sheet.add(
            asked=f"{fusion}+{head}", chosen=results.fusion, **own, ece_before=before,
            **{f"{by}_{name}": results.fusions[0].score[name] for name in ("accuracy", "log_loss")},
            seconds=seconds,
        )  # fmt: skip
        print(sheet.rows[-1], file=sys.stderr, flush=True)
        if (fusion, head) == ("auto", "auto"):
            figures["before"] = {"ece": before}
            for one in results.fusions:
                sheet.add(searched=one.fusion, layers=len(one.layers), by=one.by,
                          accuracy=one.score["accuracy"], log_loss=one.score["log_loss"],
                          tied=one.tied)  # fmt: skip
    conclude(sheet, figures, least)
    return sheet


def raw_calibration_error(
    store: EmbeddingStore, model: TransferModel, rows: np.ndarray
) -> float | None:
    """Calibration error of a ridge before calibration: its scores are taken for logits."""
    head = model.heads["label"][-1]
    if not hasattr(head, "temperature_") or not hasattr(head, "coef_"):
        return None
    X = store.matrix(list(model.layers), np.flatnonzero(rows))[0]
    proba = softmax(X @ head.coef_.T + head.intercept_)
    truth = np.asarray(store.targets["label"].values)[rows]
    right = head.classes_[proba.argmax(axis=1)].astype(str) == truth.astype(str)
    return calibration_error(proba.max(axis=1), right)


def conclude(sheet: Sheet, figures: dict[str, Any], least: float | None) -> None:
    """Hold what the search chose against its targets."""
    auto, beside = figures["auto+auto"], figures["concat+logistic"]
    last = max(figures[f"last+{head}"]["accuracy"] for head in ("ridge", "logistic"))
    sheet.judge("accuracy, auto - concat+logistic", [auto["accuracy"] - beside["accuracy"]], -0.002)
    sheet.judge("log-loss, auto - concat+logistic", [auto["log_loss"] - beside["log_loss"]], 0,
                at_most=True)  # fmt: skip
    sheet.judge("accuracy, auto - last (better head)", [auto["accuracy"] - last], 0.02)
    sheet.judge("accuracy, auto", [auto["accuracy"]], least)
    sheet.judge("calibration error, auto, before", [figures["before"]["ece"]])
    sheet.judge("calibration error, auto", [auto["ece"]], 0.03, at_most=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("fashion.h5"))
    parser.add_argument("--digits-cache", type=Path, default=Path("digits.h5"))
    given = parser.parse_args()
    found: dict[str, Any] = {"backbone": "efficientnet_lite0, 128 px", "sections": {}}
    n_train = 60_000 if given.full else 6000
    sources = (("Fashion-MNIST", fashion(n_train), given.cache, None if given.full else 0.897),
               ("digits", digits(), given.digits_cache, None))  # fmt: skip
    for title, samples, cache, least in sources:
        store, seconds = timed(
            lambda samples=samples, cache=cache: embed(
                samples, "efficientnet_lite0", cache, options=OPTIONS, progress=True
            )
        )
        sheets = {title: compared(store, title, least)}
        if title == "Fashion-MNIST":
            sheets["noise"] = noise(store)
        for name, sheet in sheets.items():
            sheet.show()
            found["sections"][name] = sheet.to_json()
        found["sections"][title]["embed_seconds"] = round(seconds, 1)
    name = "accuracy-full.json" if given.full else "accuracy.json"
    write_results(RESULTS / name, "accuracy", found)


if __name__ == "__main__":
    main()
