"""Findings: what the runs of one section say, against its targets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from measuring import Run

SAME, OTHER_RESIZE = 0.99, 0.95
"""Least cosine of every layer of every photo: pictures prepared alike; by another filter."""


@dataclass
class Findings:
    """The runs of a section by contestant, repeat after repeat, and what is concluded."""

    title: str
    runs: Mapping[str, Sequence[Run]]
    concluded: list[dict[str, Any]] = field(default_factory=list)

    def has(self, *names: str) -> bool:
        """Whether all of these took part."""
        return all(name in self.runs for name in names)

    def rates(self, name: str) -> list[float]:
        """Give the images per second of a contestant, repeat after repeat."""
        return [run.rate for run in self.runs[name]]

    def compare(
        self, ours: str, theirs: str, target: float | None = None, *,
        least: float = SAME, by: str = "rate",
    ) -> None:  # fmt: skip
        """Conclude how many times as fast one is; void where the vectors are not the same."""
        what = f"{ours} / {theirs}"
        if not self.has(ours, theirs):
            self.concluded.append({"what": what, "target": target, "verdict": "not measured"})
            return
        pairs = list(zip(self.runs[ours], self.runs[theirs], strict=True))
        if by == "wall":
            ratios = [b.wall * a.told["rows"] / (a.wall * b.told["rows"]) for a, b in pairs]
        else:
            ratios = [a.rate / b.rate for a, b in pairs]
        self.judge(what, ratios, target, unit="x", check=parity(*pairs[-1], least))

    def judge(
        self, what: str, values: Iterable[float], target: float | None = None, *,
        unit: str = "", at_most: bool = False, check: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Conclude whether the median of a figure meets its target."""
        measured = spread(values)
        median = measured["median"]
        if check is not None and not check["holds"]:
            verdict = f"void: the {check.get('of', 'vectors')} differ"
        elif target is None:
            verdict = "no target"
        else:
            verdict = "met" if (median <= target if at_most else median >= target) else "not met"
        self.concluded.append(
            {"what": what, "measured": measured, "unit": unit, "target": target,
             "at_most": at_most, "parity": check, "verdict": verdict}
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Give figures by contestant, and conclusions."""
        figures = {name: _figures(runs) for name, runs in self.runs.items()}
        return {"figures": figures, "conclusions": self.concluded}

    def show(self) -> None:
        """Print the section: a line for each contestant, a line for each conclusion."""
        print(f"\n{self.title}")
        for name, runs in self.runs.items():
            found = _figures(runs)
            rate = found["images_per_second"]
            parts = ", ".join(f"{part} {value:g} s" for part, value in found["seconds"].items())
            print(
                f"  {name:<28} {_shown(rate, ' images/s') if rate else 'nothing to do':<34} "
                f"whole {_shown(found['wall'], ' s')}{'; ' if parts else ''}{parts}"
            )
        for one in self.concluded:
            print(f"  -> {_line(one)}")


def _line(one: Mapping[str, Any]) -> str:
    if "measured" not in one:
        return f"{one['what']}: {one['verdict']}"
    line = f"{one['what']}: {_shown(one['measured'], one['unit'])}"
    if one["target"] is not None:
        line += f", target {'<=' if one['at_most'] else '>='} {one['target']:g}{one['unit']}"
    line += f": {one['verdict']}"
    if (check := one["parity"]) and check["layers"]:
        line += (
            f"; cosine {check['median']:.5f}, smallest {check['smallest']:.5f} in "
            f"{check['layers']} layers (>= {check['least']:g})"
        )
    return line


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Sum up the repeats of one contestant; of our own command also where the time went."""
    parts = [run.told["seconds"] for run in runs if isinstance(run.told["seconds"], dict)]
    return {
        "photos": runs[0].told["rows"],
        "images_per_second": spread(run.rate for run in runs) if runs[0].computed else None,
        "wall": spread(run.wall for run in runs),
        "seconds": {
            name: round(statistics.median(part[name] for part in parts), 2)
            for name in (parts[0] if parts else ())
        },
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest, largest, in four digits."""
    listed = list(values)
    found = {"median": statistics.median(listed), "min": min(listed), "max": max(listed)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def _shown(values: Mapping[str, float], unit: str) -> str:
    return f"{values['median']:g}{unit} ({values['min']:g} to {values['max']:g})"


def parity(ours: Run, theirs: Run, least: float) -> dict[str, Any]:
    """Cosines between two runs: of every photo, in every layer that both have."""
    a, b = ours.vectors(), theirs.vectors()
    cosines = [_cosines(a[tap], b[tap]) for tap in a if tap in b]
    if not cosines:
        return {"layers": 0, "holds": False}
    median, smallest = float(np.median(cosines)), float(np.min(cosines))
    return {"layers": len(cosines), "median": round(median, 6), "smallest": round(smallest, 6),
            "least": least, "holds": smallest >= least}  # fmt: skip


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rows = min(len(a), len(b))  # one of the two may have been given fewer photos
    a, b = a[:rows].astype(np.float64), b[:rows].astype(np.float64)
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


@dataclass
class Sheet(Findings):
    """Findings that rest on a table, not on runs of contestants in processes of their own."""

    runs: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, **row: Any) -> None:
        """Add a row to the table; numbers are rounded to five digits."""
        self.rows.append({name: _rounded(value) for name, value in row.items()})

    def judge_absent(self, what: str, reason: str) -> None:
        """Conclude nothing, and say why."""
        self.concluded.append({"what": what, "target": None, "verdict": f"not measured: {reason}"})

    def to_json(self) -> dict[str, Any]:
        """Give the table, and conclusions."""
        return {"title": self.title, "rows": self.rows, "conclusions": self.concluded}

    def show(self) -> None:
        """Print the section: a line for each row, a line for each conclusion."""
        print(f"\n{self.title}")
        for row in self.rows:
            told = {name: value for name, value in row.items() if value is not None}
            print("  " + ", ".join(f"{name} {value}" for name, value in told.items()))
        for one in self.concluded:
            print(f"  -> {_line(one)}", flush=True)


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float | np.floating) else value


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Give what a call gives, and its seconds."""
    began = time.perf_counter()
    found = call()
    return found, time.perf_counter() - began
