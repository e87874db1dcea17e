"""Speed of `embed`: against what its parts allow, and against the loops of others.

    python benchmarks/extraction.py                          everything, an hour and more
    python benchmarks/extraction.py --only roofline writer   two sections

Every contestant runs as a process of its own, all take turns, and medians count. A ratio is
void where the vectors of the two are not the same. Peers (``pip install --no-deps embetter
img2vec-pytorch``) may be absent: they are named. This script downloads nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from findings import OTHER_RESIZE, Findings
from measuring import Bench, Contestant, Run, machine
from photos import write_photos
from safetensors.numpy import save_file

from pipeline import load_backbone
from pipeline.backbones import resolve_device

RESULTS = Path(__file__).parent / "results"
PHOTOS = Path(tempfile.gettempdir()) / "transfer-pipeline-photos"


def roofline(bench: Bench, given: argparse.Namespace) -> Findings:
    """Compare the whole with the engine alone and the loader alone."""
    engine = Contestant("engine", "forward", given.flags)
    loader = Contestant("loader", "prepare", given.flags)
    whole = Contestant("embed", "embed", given.flags)
    turns = bench.take_turns(dict.fromkeys((engine, loader, whole), given.photos))
    found = Findings("roofline", turns)
    parts = list(zip(found.rates("engine"), found.rates("loader"), strict=True))
    if bench.device == "cpu":  # both share the cores
        roofs = [1 / (1 / engine + 1 / loader) for engine, loader in parts]
    else:
        roofs = [min(pair) for pair in parts]
    reached = [rate / roof for rate, roof in zip(found.rates("embed"), roofs, strict=True)]
    found.judge("roofline of the parts", roofs, None, unit=" images/s")
    found.compare("embed", "engine")
    found.judge("embed / roofline", reached, 0.90)
    return found


def loops(bench: Bench, given: argparse.Namespace) -> Findings:
    """Compare with what everybody writes, and with other packages."""
    ours = {
        "auto": (),
        "float32": ("--precision", "float32"),
        "squash": ("--resize", "squash"),  # as img2vec does
    }
    peers = ("plain", "bfloat16", "embetter", "img2vec", "thingsvision")
    if bench.device != "cpu":
        peers = ("plain", "amp", "embetter", "img2vec", "thingsvision")
    contestants = {
        Contestant(f"embed {name}", "embed", (*given.flags, *flags)): given.photos
        for name, flags in ours.items()
    }
    contestants |= {Contestant(name, name, given.flags): given.loop_photos for name in peers}
    found = Findings("loops", bench.take_turns(contestants))
    on_cpu = bench.device == "cpu"
    found.compare("embed auto", "plain", 9 if on_cpu else None)
    found.compare("embed float32", "plain", 4.5 if on_cpu else None)
    found.compare("embed auto", peers[1])
    found.compare("embed auto", "embetter", 5)
    found.compare("embed squash", "img2vec", 5, least=OTHER_RESIZE)
    return found


def command(bench: Bench, given: argparse.Namespace) -> Findings:
    """Compare whole commands, with start and imports; our graph was prepared before."""
    ours = Contestant("embed, whole command", "embed", given.flags)
    plain = Contestant("plain, whole script", "plain", given.flags)
    turns = bench.take_turns(dict.fromkeys((ours, plain), given.command_photos))
    found = Findings("command", turns)
    found.compare(ours.name, plain.name, 7, by="wall")
    return found


def networks(bench: Bench, given: argparse.Namespace) -> Findings:
    """Compare other networks, with random weights, end to end."""
    on_cpu = bench.device == "cpu"
    names = ("resnet50", "vit_small_patch16_224" if on_cpu else "vit_base_patch16_224")
    loop, targets = ("plain", (2, 2)) if on_cpu else ("amp", (3, None))
    contestants: dict[Contestant, int] = {}
    for name in names:
        weights = bench.work / f"{name}.safetensors"
        save_file(load_backbone(f"timm/{name}", weights=None).state(), weights)
        flags = ("--backbone", f"timm/{name}", "--weights", str(weights), "--device", bench.device)
        contestants[Contestant(f"embed {name}", "embed", flags)] = given.loop_photos
        contestants[Contestant(f"{loop} {name}", loop, flags)] = given.loop_photos
    found = Findings("networks", bench.take_turns(contestants))
    for name, target in zip(names, targets, strict=True):
        found.compare(f"embed {name}", f"{loop} {name}", target)
    return found


def layers(bench: Bench, given: argparse.Namespace) -> Findings:
    """Compare all layers with the last one alone."""
    every = Contestant("all layers", "embed", given.flags)
    last = Contestant("last layer", "embed", (*given.flags, "--layers", "features"))
    found = Findings("layers", bench.take_turns(dict.fromkeys((every, last), given.photos)))
    found.compare("all layers", "last layer", 0.97)
    return found


def rerun(bench: Bench, given: argparse.Namespace) -> Findings:
    """Embed, embed again unchanged, embed with a tenth of new photos."""
    ours = Contestant("embed", "embed", given.flags)
    bench.turn(ours, 16)
    count = given.photos * 10 // 11
    runs: dict[str, list[Run]] = {"first": [], "unchanged": [], "a tenth new": []}
    for repeat in range(bench.repeats):
        runs["first"].append(bench.turn(ours, count))
        cache = runs["first"][-1].out
        runs["unchanged"].append(ours.run(bench.listed(count), cache))
        runs["a tenth new"].append(ours.run(bench.listed(given.photos), cache))
        for name, one in runs.items():
            bench.tell(repeat, name, one[-1])
    found = Findings("rerun", runs)
    first, again, grown = runs.values()
    shares = [100 * b.wall / a.wall for a, b in zip(first, again, strict=True)]
    found.judge("unchanged / first", shares, None, unit=" %")
    limit = max(1, round(0.03 * min(run.wall for run in first), 1))  # a second, or 3 %
    found.judge("unchanged", [run.wall for run in again], limit, unit=" s", at_most=True)
    costs = [100 * _working(b) / _working(a) for a, b in zip(first, grown, strict=True)]
    found.judge("a tenth new / first, without start", costs, 12, unit=" %", at_most=True)
    return found


def _working(run: Run) -> float:
    return float(run.told["seconds"]["total"] - run.told["seconds"]["start"])


def writer(bench: Bench, given: argparse.Namespace) -> Findings:
    """Compare the time with the writer and without."""
    ours = Contestant("embed", "embed", given.flags)
    sink = Contestant("result dropped", "sink", given.flags)
    found = Findings("writer", bench.take_turns(dict.fromkeys((ours, sink), given.photos)))
    found.compare("embed", "result dropped")
    pairs = zip(found.rates("embed"), found.rates("result dropped"), strict=True)
    slower = [dropped / written for written, dropped in pairs]
    found.judge("time with the writer / without", slower, 1.03, at_most=True)
    return found


def workers(bench: Bench, given: argparse.Namespace) -> Findings:
    """Compare numbers of loading threads: auto must be as good as the best."""
    numbers = ("auto", "1", "2", "4")
    contestants = {
        Contestant(f"{number} workers", "embed", (*given.flags, "--num-workers", number)): (
            given.photos
        )
        for number in numbers
    }
    found = Findings("workers", bench.take_turns(contestants))
    for number in numbers[1:]:
        found.compare("auto workers", f"{number} workers", 0.97)
    return found


SECTIONS = {
    section.__name__: section
    for section in (roofline, loops, command, networks, layers, rerun, writer, workers)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--loop-photos", type=int, default=500, help="for slow loops")
    parser.add_argument("--command-photos", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--folder", type=Path, default=PHOTOS, help="where the photos lie")
    parser.add_argument("--out", type=Path, default=RESULTS / "extraction.json")
    given = parser.parse_args()
    device = resolve_device(given.device)
    given.loop_photos = min(given.loop_photos, given.photos)
    given.flags = ("--backbone", given.backbone, "--device", device)
    count = max(given.photos, given.command_photos if "command" in given.only else 0)
    photos = [path.resolve() for path in write_photos(given.folder, count)]
    size = sum(len(path.read_bytes()) for path in photos)  # and they lie in memory from now on
    found = {"benchmark": "extraction", "machine": machine(device),
             "photos": {"count": count, "mean_bytes": size // count},
             "repeats": given.repeats, "backbone": given.backbone, "sections": {}}  # fmt: skip
    print(json.dumps(found["machine"], indent=1))
    with tempfile.TemporaryDirectory(prefix="extraction-") as folder:
        os.environ["PIPELINE_CACHE_DIR"] = str(Path(folder, "graphs"))
        bench = Bench(photos, Path(folder), given.repeats, device)
        for name in given.only:
            print(name, file=sys.stderr, flush=True)
            findings = SECTIONS[name](bench, given)
            findings.show()
            found["sections"][name] = findings.to_json()
    found["absent"] = bench.absent
    for name, reason in bench.absent.items():
        print(f"absent: {name}: {reason}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
