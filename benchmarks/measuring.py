"""Measuring: contestants in processes of their own that take turns, and the machine they ran on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import EmbeddingStore
from pipeline.backbones import resolve_precision

LOOPS = Path(__file__).with_name("loops.py")
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("transfer-pipeline", "torch", "torchvision", "timm", "openvino", "torchcodec", "numpy",
            "pillow", "h5py", "filelock", "safetensors", "scikit-learn", "scipy", "skops",
            "embetter", "img2vec-pytorch", "thingsvision", "himalaya", "fastai")  # fmt: skip
PROBE = 16
"""Photos that every contestant is tried on before the clock runs."""


class AbsentError(Exception):
    """A contestant that does not run here."""


@dataclass(frozen=True)
class Contestant:
    """Something that turns a list of photos into vectors.

    ``loop`` is one of `loops.LOOPS`, or ``embed``: our command itself.
    """

    name: str
    loop: str
    flags: tuple[str, ...] = ()

    def run(self, photos: Path, out: Path) -> Run:
        """Run as a whole command; its start and its imports count in ``wall`` alone."""
        if self.loop == "embed":
            out = out.with_suffix(".h5")
            command = ["-m", "pipeline", "embed", photos, out, "--json"]
        else:
            out = out.with_suffix(".npz")
            command = [LOOPS, self.loop, photos, out]
        line = [sys.executable, *map(str, command), *self.flags]
        began = time.perf_counter()
        ended = subprocess.run(line, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - began
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            raise AbsentError(said[-1])
        told = json.loads(ended.stdout[ended.stdout.index("{") :])
        return Run(wall, told, out)


@dataclass(frozen=True)
class Run:
    """What came of one turn: seconds of the whole command, its JSON, where its vectors lie."""

    wall: float
    told: Mapping[str, Any]
    out: Path

    @property
    def computed(self) -> bool:
        """Whether there was anything to do."""
        return self.told["images_per_second"] is not None

    @property
    def rate(self) -> float:
        """Images per second without the start."""
        return float(self.told["images_per_second"])

    def vectors(self) -> dict[str, np.ndarray]:
        """Give the vectors by tap."""
        if self.out.suffix == ".npz":
            return dict(np.load(self.out))
        with EmbeddingStore.open(self.out) as store:
            return {layer.rpartition("/")[2]: store.values(layer) for layer in store.layers}


@dataclass(frozen=True)
class Bench:
    """The photos, a folder for what comes of them, and how often everything is done."""

    photos: Sequence[Path]
    work: Path
    repeats: int
    device: str
    absent: dict[str, str] = field(default_factory=dict)

    def listed(self, count: int) -> Path:
        """Name the first photos in a text file."""
        path = self.work / f"{count}.txt"
        path.write_text("".join(f"{photo}\n" for photo in self.photos[:count]))
        return path

    def turn(self, one: Contestant, count: int) -> Run:
        """Let one contestant work, from nothing."""
        out = self.work / one.name.replace("/", "-").replace(" ", "-").replace(".", "")
        for suffix in (".h5", ".npz"):
            out.with_suffix(suffix).unlink(missing_ok=True)
        shutil.rmtree(out.with_suffix(".h5.parts"), ignore_errors=True)
        return one.run(self.listed(count), out)

    def is_present(self, one: Contestant) -> bool:
        """Try it on a few photos: its graph is prepared, its files are warm; or it is absent."""
        try:
            self.turn(one, PROBE)
        except AbsentError as reason:
            self.absent[one.name] = str(reason)
            return False
        return True

    def take_turns(self, counts: Mapping[Contestant, int]) -> dict[str, list[Run]]:
        """Run all on so many photos, then all again: what slows the machine slows everybody."""
        present = [one for one in counts if self.is_present(one)]
        runs: dict[str, list[Run]] = {one.name: [] for one in present}
        for repeat in range(self.repeats):
            for one in present:
                run = self.turn(one, counts[one])
                runs[one.name].append(run)
                self.tell(repeat, one.name, run)
        return runs

    def tell(self, repeat: int, name: str, run: Run) -> None:
        """Say how a turn went."""
        rate = f"{run.rate:.1f} images/s" if run.computed else "nothing to do"
        said = f"{name}: {rate}, whole {run.wall:.1f} s"
        print(f"  {repeat + 1}/{self.repeats} {said}", file=sys.stderr, flush=True)


def machine(device: str) -> dict[str, Any]:
    """Say what the figures were measured on."""
    name = device
    if device.startswith("cuda"):
        import torch

        name = f"{device}: {torch.cuda.get_device_name(device)}"
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": name,
        "precision_auto": resolve_precision("auto", device),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def write_results(out: Path, benchmark: str, found: Mapping[str, Any]) -> None:
    """Write figures beside what they were measured on."""
    out.parent.mkdir(parents=True, exist_ok=True)
    told = {"benchmark": benchmark, "machine": machine("cpu"), **found}
    out.write_text(json.dumps(told, indent=2) + "\n")


def cpu_of_others() -> float | None:
    """Seconds that all cores have worked for others than this process and those it has ended.

    None where Linux does not say.
    """
    file = Path("/proc/stat")
    if not file.exists():
        return None
    user, nice, system = map(int, file.read_text().split()[1:4])
    children = os.times().children_user + os.times().children_system
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - time.process_time() - children


def _processor() -> str:
    """Name and family: virtual machines hide the model."""
    file = Path("/proc/cpuinfo")
    pairs = [line.partition(":") for line in file.read_text().splitlines()] if file.exists() else []
    told = {key.strip(): value.strip() for key, _, value in pairs}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    return f"{told['model name']}, family {told['cpu family']}, model {told['model']}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
