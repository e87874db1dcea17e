"""Fuzzing: mutated caches and models, each of which is refused by an error of ours or read right.

    python benchmarks/fuzzing.py                 12,000 tries, 11,400 mutated files
    python benchmarks/fuzzing.py --each 100      the same kinds, fewer of each

Each file is opened and read whole in a child that is watched: another exception, a hang, a
crash, memory growth and a wrong answer are findings. Files that are forged (sealed or signed
anew) reach the parsers behind the seal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzzing import CACHES, MODELS, WELL, tally, write_cache, write_models
from measuring import RESULTS, write_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzzing.json")
    asked = parser.parse_args()
    began, kinds, found = time.perf_counter(), {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = [(kind, [write_cache(folder / "cache.h5")]) for kind in CACHES]
        models = write_models(folder)
        work += [(kind, models) for kind in MODELS]
        for kind, sources in work:
            counts, findings = tally(kind, sources, asked.each, asked.seed, folder)
            kinds[kind.name] = dict.fromkeys(WELL, 0) | dict(counts)
            found += findings
            print(f"{kind.name}: {kinds[kind.name]}", *findings[:10], sep="\n  ", flush=True)
    files = sum(count for counts in kinds.values() for count in counts.values())
    files -= sum(counts["not made"] for counts in kinds.values())
    write_results(asked.out, "fuzzing: mutated caches and models",
                  {"seed": asked.seed, "mutated files": files, "kinds": kinds, "findings": found,
                   "seconds": round(time.perf_counter() - began, 1)})  # fmt: skip
    print(f"{files} mutated files, {len(found)} findings")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
