"""Mutated files in the hands of our readers, in children that are watched."""

import json
import os
import resource
import select
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mutations
import numpy as np
from stores import model_of, store_of, vectors

from pipeline.cache import EmbeddingStore
from pipeline.errors import PipelineError
from pipeline.model import TransferModel

PATIENCE = 2
"""Seconds of a processor after which a reader hangs: reading takes some milliseconds."""
STUCK = 60
"""Seconds after which one hangs that uses no processor."""
GROWTH = 64 << 20
"""Bytes by which a reader may grow over a file of some kilobytes."""
ROOM = 4 << 30
FOR_EVER = resource.RLIM_INFINITY
WELL = ("refused", "right", "stopped", "not made")

Answer = dict[str, bytes]


@dataclass(frozen=True)
class Kind:
    """A way to mutate a file, and what a reader may answer beside an error of ours.

    ``same`` names the parts of the answer that must be those of the sound file. HDF5 loops for
    ever over some forged files, which no check of ours can foresee: it ``may_loop``, and is
    stopped, where a seal was forged for what it reads.
    """

    name: str
    mutate: Callable[[Path, Path, np.random.Generator], None]
    read: Callable[[Path], Answer]
    same: tuple[str, ...]
    may_loop: bool = False


def read_cache(path: Path) -> Answer:
    """Read all there is; damage that `matrix` finds must be named by `damaged`, too."""
    with EmbeddingStore.open(path) as store:
        damaged = store.damaged()
        try:
            X, slices = store.matrix()
        except PipelineError:
            if not damaged:
                raise AssertionError("matrix found damage that damaged() does not know") from None
            raise
        if damaged or X.shape != (len(store), sum(store.layers.values())):
            raise AssertionError(f"damaged {damaged}, shape {X.shape}")
        names = {name: column.values.tolist() for name, column in store.targets.items()}
        said = [store.ids, names, store.failed, store.inputs.tobytes(), store.specs, slices]
        return {"vectors": X.tobytes(), "rest": repr(said).encode()}


def read_model(path: Path) -> Answer:
    """Load it; what a sound model predicts is asked where the answer must be the same."""
    model = TransferModel.load(path)
    return {"model": repr((model.layers, model.specs, model.split)).encode()}


def read_and_predict(path: Path) -> Answer:
    model = TransferModel.load(path)
    X, _ = store_of(12, seed=5).matrix(list(model.layers))
    proba = next(iter(model.heads.values())).predict_proba(X)
    return {"model": b"", "predictions": proba.tobytes()}


CACHES = (
    Kind("cache damaged", mutations.damage_cache, read_cache, ("vectors", "rest")),
    Kind("cache damaged and sealed", mutations.forge_cache_bytes, read_cache, ("vectors",), True),
    Kind("cache with a hostile seal", mutations.forge_cache_seal, read_cache, ("vectors", "rest")),
    Kind("cache of a forged structure", mutations.forge_cache_structure, read_cache, ()),
)
MODELS = (
    Kind("model damaged", mutations.damage_model, read_and_predict, ("predictions",)),
    Kind("model damaged and signed", mutations.forge_model_bytes, read_model, ()),
    Kind("model with a hostile header", mutations.forge_model_header, read_model, ()),
    Kind("model with a hostile description", mutations.forge_model_description, read_model, ()),
    Kind("model of forged tensors", mutations.forge_model_tensors, read_model, ()),
    Kind("model of forged skops steps", mutations.forge_model_skops, read_model, ()),
)


def write_cache(path: Path) -> Path:
    """Make a cache with a bit of everything, in one user block."""
    labels = {"label": ["elk", "fox", None, "owl"] * 5, "age": [1.5, None] * 10}
    EmbeddingStore.from_arrays(
        vectors(20)[0], [f"a/{row:03}.jpg" for row in range(20)], labels, path
    )
    return path


def write_models(folder: Path) -> list[Path]:
    """Make a model whose head is ours, and one whose head is scikit-learn's."""
    paths = []
    for head in ("ridge", "knn"):
        paths.append(folder / f"{head}.safetensors")
        model_of(store_of(), head=head).save(paths[-1])
    return paths


def verdicts(
    kind: Kind, sources: list[Path], numbers: range, seed: int, folder: Path
) -> Iterator[tuple[int, str]]:
    """Judge mutants by number: the same seed and number give the same file again.

    `WELL` is what is well; every other word is a finding.
    """
    expected = [kind.read(source) for source in sources]
    while numbers:
        for number, verdict in _child(kind, sources, expected, numbers, seed, folder):
            numbers = range(number + 1, numbers.stop)
            yield number, verdict


def tally(kind: Kind, sources: list[Path], count: int, seed: int, folder: Path):
    """Count verdicts, and name the mutants of those that are findings."""
    counts, findings = Counter(), []
    for number, verdict in verdicts(kind, sources, range(count), seed, folder):
        counts[verdict.partition(":")[0]] += 1
        if verdict not in WELL:
            findings.append(f"{kind.name} {number}: {verdict}")
    return counts, findings


def _child(kind, sources, expected, numbers, seed, folder) -> Iterator[tuple[int, str]]:
    """Let a child judge one mutant after the other, and end it when it hangs or dies."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            _judge(kind, sources, expected, numbers, seed, folder, write)
        finally:
            os._exit(0)
    os.close(write)
    try:
        with os.fdopen(read, "rb", buffering=0) as told:  # or `select` would not see all
            for number in numbers:
                ready, _, _ = select.select([told], [], [], STUCK)
                line = told.readline() if ready else b""
                if not line:
                    break
                yield number, json.loads(line)
    finally:
        os.kill(child, signal.SIGKILL)  # only where it hangs: it has ended, or is to end
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not line:
        hung = code in (-signal.SIGXCPU, -signal.SIGKILL)
        stopped = "stopped" if kind.may_loop else "hangs"
        yield number, stopped if hung else f"crashes: exit code {code}"


def _judge(kind, sources, expected, numbers, seed, folder, write) -> None:
    warnings.simplefilter("error")
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        place = number % len(sources)
        path = folder / "mutant"
        try:
            kind.mutate(sources[place], path, np.random.default_rng([seed, number]))
        except (ValueError, LookupError, OSError, RuntimeError, TypeError):
            os.write(write, b'"not made"\n')  # HDF5 allows no such change
            continue
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + PATIENCE, FOR_EVER))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        verdict = _verdict(kind, path, expected[place])
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        if grown > GROWTH:
            verdict = f"grows: by {grown >> 20} MB, then {verdict}"
        os.write(write, json.dumps(verdict[:400]).encode() + b"\n")


def _verdict(kind: Kind, path: Path, expected: Answer) -> str:
    try:
        answer = kind.read(path)
    except PipelineError:
        return "refused"
    except BaseException as error:
        return f"another exception: {type(error).__name__}: {error}"
    wrong = [name for name in kind.same if answer[name] != expected[name]]
    return f"wrong: {', '.join(wrong)}" if wrong else "right"
