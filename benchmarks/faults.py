"""Faults: an `embed` that is killed, two that start at once, readers while a cache is renamed.

    python benchmarks/faults.py                       200 kills, 50 pairs, 100,000 opens
    python benchmarks/faults.py --kills 20 --pairs 5 --opens 1000 --renames 100

Every kill is one life of a real `pipeline embed` in a process of its own: half of them from
outside at a random moment, half before, in or after one drawn change of the disk. Then the
cache is looked at, the same command is given again, and what it makes is compared bit for
bit with what an undisturbed run makes. Whatever is counted as harm must be 0.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from crowd import readers_and_renames, two_writers
from embed_command import Command, new_world
from killing import HARM, drawn, toll_of
from measuring import RESULTS, write_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--opens", type=int, default=100_000)
    parser.add_argument("--renames", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PIPELINE_CACHE_DIR"] = f"{folder}/graphs"
        commands = new_world(Path(folder, "world"), thorough=True)
        measured = {
            "changes of the disk": {name: one.changes for name, one in commands.items()},
            "kills": timed(kills, commands, asked.kills, asked.seed, Path(folder, "kills")),
            "two writers": timed(pairs, commands, asked.pairs, Path(folder, "pairs")),
            "readers": timed(readers_and_renames, Path(folder), asked.opens, asked.renames),
        }
    write_results(asked.out, "faults: kills, two writers, readers while renaming",
                  {"seed": asked.seed, **measured})  # fmt: skip
    harm = {name: count for name, count in measured["kills"].items() if name in HARM and count}
    harm |= {name: measured["two writers"][name] for name in ("unsound", "unexplained")
             if measured["two writers"][name]}  # fmt: skip
    harm |= {name: count for name, count in measured["readers"].items()
             if name.startswith(("garbage", "refused"))}  # fmt: skip
    print(f"harm: {harm or 'none'}")
    sys.exit(bool(harm))


def timed(measure, *arguments) -> dict[str, float]:
    began = time.perf_counter()
    found = dict(measure(*arguments)) | {"seconds": round(time.perf_counter() - began, 1)}
    print(f"{measure.__name__}: {found}", flush=True)
    return found


def kills(commands: dict[str, Command], count: int, seed: int, folder: Path) -> Counter[str]:
    """Kill until that many have died; a kill from outside may come too late."""
    total = Counter(dict.fromkeys(("lives", "kills", *HARM), 0))
    for kill in drawn(commands, seed):
        if total["kills"] >= count:
            break
        toll = toll_of(kill, commands[kill.command], folder / str(total["lives"]))
        total.update(toll)
        total["lives"] += 1
        total["kills at the disk"] += toll["kills"] * (kill.moment is not None)
        total["kills from outside"] += toll["kills"] * (kill.delay is not None)
        if any(toll[name] for name in HARM):
            print(f"{kill}: {dict(toll)}", flush=True)
    return total


def pairs(commands: dict[str, Command], count: int, folder: Path) -> Counter[str]:
    total = Counter(dict.fromkeys(("starts", "unsound", "unexplained"), 0))
    for turn in range(count):
        command = list(commands.values())[turn % len(commands)]
        total.update(two_writers(command, folder / str(turn)))
    return total


if __name__ == "__main__":
    main()
