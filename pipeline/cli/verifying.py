"""``pipeline verify``: whether a file is sound, and whether its numbers come out again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.cli.apart import read_apart
from pipeline.cli.talk import say, show_json, show_line
from pipeline.errors import OptionError
from pipeline.samples import SampleSet

__all__ = ["verify"]

_DONE, _DAMAGED = 0, 1
_SHOWN = 20


def verify(
    file: Path,
    /,
    *,
    repair: Path | None = None,
    drift: Path | None = None,
    max_pixels: int | None = None,
    follow_outside: bool = False,
    json: bool = False,
) -> int:
    """Check every byte of a cache or of a model file.

    Parameters
    ----------
    file
        A cache or a model file; its content says which.
    repair
        The source that the cache was made from: its damaged rows are embedded again.
    drift
        The source that the cache was made from: a sample of its rows is embedded here and
        now, and compared with what is stored.
    max_pixels
        As for embed.
    follow_outside
        As for embed.
    json
        Print one JSON object on standard output.
    """
    found = read_apart(_verified, file)
    if found["kind"] == "model" and (repair or drift):
        raise OptionError(
            "--repair and --drift embed rows again, but a model has none. Give them with a cache."
        )
    if repair is not None:
        samples = SampleSet.from_source(repair, follow_outside=follow_outside)
        found |= _repaired(file, samples, max_pixels, found)
    if drift is not None:
        samples = SampleSet.from_source(drift, follow_outside=follow_outside)
        found |= _drifted(file, samples, max_pixels)
    if json:
        show_json(found)
    else:
        for line in _in_words(found):
            show_line(line)
    another = "another network" in found.get("drift", {}).values()
    return _DONE if found["sound"] and not another else _DAMAGED


def _verified(file: Path) -> dict[str, Any]:
    from pipeline.verification import verify

    found = verify(file)
    return dataclasses.asdict(found) | {"sound": found.sound}


def _repaired(
    file: Path, samples: SampleSet, max_pixels: int | None, found: dict[str, Any]
) -> dict[str, Any]:
    from pipeline.verification import repair

    if found["sound"]:
        say("nothing is damaged: nothing to repair")
        return {"repaired": 0}
    summary = repair(file, samples, max_pixels=max_pixels, progress=True)
    return _verified(file) | {"repaired": summary.rows - summary.reused}


def _drifted(file: Path, samples: SampleSet, max_pixels: int | None) -> dict[str, Any]:
    from pipeline.verification import drift

    found = drift(file, samples, max_pixels=max_pixels)
    return {
        "drift": found.verdicts,
        "agreement": dict(found.layers),
        "drift_rows": found.rows,
        "drift_changed": found.changed,
    }


def _in_words(found: dict[str, Any]) -> list[str]:
    rows = "rows" if found["kind"] == "cache" else "training rows"
    verdict = "sound" if found["sound"] else "damaged"
    lines = [f"{verdict}: {found['kind']}, {found['rows']} {rows}, {len(found['layers'])} layers"]
    for layer, stretches in found["damaged"].items():
        which = ", ".join(f"{first} to {last}" for first, last in stretches)
        lines.append(f"damaged {layer}: rows {which}")
    for layer, ids in found["not_finite"].items():
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        lines.append(f"not finite {layer}: {', '.join(ids[:_SHOWN])}{more}")
    if "repaired" in found:
        lines.append(f"{found['repaired']} rows were embedded again")
    if "drift" in found:
        lines.append(
            f"{found['drift_rows']} rows embedded here and now"
            + (f", {found['drift_changed']} passed over: changed" * bool(found["drift_changed"]))
        )
        for layer, told in found["drift"].items():
            lines.append(f"drift {layer}: {told} (agreement {found['agreement'][layer]:.8f})")
    return lines
