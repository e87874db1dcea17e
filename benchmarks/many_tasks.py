"""Several targets in one model against a model each: time and figures.

scikit-learn's 1,797 digits with three targets: the parity, the digit, and the mean ink (a number);
half of the labels of each are missing, at random. One ``train`` with all three against three
commands, taking turns; the held-out rows are the same.

    python benchmarks/many_tasks.py            a few minutes
    python benchmarks/many_tasks.py --missing 0
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from accuracy import OPTIONS
from findings import Sheet
from measuring import RESULTS, write_results
from sklearn.datasets import load_digits

from pipeline import SampleSet, embed
from pipeline.results import headline

TARGETS = ("parity", "digit", "ink")


def digits(missing: float) -> SampleSet:
    """Give the digits with three targets, some of whose labels are missing."""
    pixels, codes = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    columns: dict[str, list[Any]] = {
        "parity": [("even", "odd")[code % 2] for code in codes],
        "digit": [str(code) for code in codes],
        "ink": images.mean(axis=(1, 2)).tolist(),
    }
    random = np.random.default_rng(0)
    for values in columns.values():
        for row in np.flatnonzero(random.random(len(values)) < missing):
            values[row] = None
    return SampleSet.from_arrays(images, columns, ids=[f"{row:04d}" for row in range(len(images))])


def train(cache: Path, model: Path, targets: tuple[str, ...]) -> tuple[dict[str, Any], np.ndarray]:
    """Run the command: what it found, and its seconds by the clock and of the processors."""
    named = [word for target in targets for word in ("--target", target)]
    line = [sys.executable, "-m", "pipeline", "train", str(cache), str(model), *named, "--json"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(line, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(ended.stdout)["targets"], np.array([wall, used])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missing", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    sheet = Sheet(f"1,797 digits, three targets, {given.missing:.0%} of the labels missing")
    seconds: dict[str, list[np.ndarray]] = {"alone": [], "together": []}
    with TemporaryDirectory() as folder:
        cache, model = Path(folder) / "cache.h5", Path(folder) / "model.safetensors"
        embed(digits(given.missing), "efficientnet_lite0", cache, options=OPTIONS, progress=True)
        for _ in range(given.rounds):
            alone: dict[str, Any] = {}
            taken = np.zeros(2)
            for target in TARGETS:
                found, own = train(cache, model, (target,))
                alone, taken = alone | found, taken + own
            together, own = train(cache, model, TARGETS)
            seconds["alone"].append(taken)
            seconds["together"].append(own)
    walls = {name: [round(float(own[0]), 2) for own in values] for name, values in seconds.items()}
    used = {name: [round(float(own[1]), 2) for own in values] for name, values in seconds.items()}
    sheet.add(seconds_alone=walls["alone"], seconds_together=walls["together"],
              processor_alone=used["alone"], processor_together=used["together"])  # fmt: skip
    for target in TARGETS:
        figure = headline(alone[target]["kind"])
        values = [one[target][figure] for one in (together, alone)]
        chosen, n_train = together[target]["fusion"], together[target]["n_train"]
        sheet.add(target=target, fusion=chosen, figure=figure, together=values[0],
                  alone=values[1], n_train=n_train)  # fmt: skip
        sheet.judge(f"{target}: {figure}, together - alone", [values[0] - values[1]], -0.005)
    for name, own in (("time", walls), ("processor time", used)):
        ratios = [a / b for a, b in zip(own["together"], own["alone"], strict=True)]
        sheet.judge(f"{name}, together / alone", ratios, 0.9 if name == "time" else None,
                    at_most=True)  # fmt: skip
    sheet.show()
    name = "many-tasks.json" if given.missing else "many-tasks-complete.json"
    write_results(RESULTS / name, "many tasks", {"sections": {"digits": sheet.to_json()}})


if __name__ == "__main__":
    main()
