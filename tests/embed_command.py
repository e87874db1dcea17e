"""`pipeline embed` in a process of its own, and worlds to run it in."""

import io
import multiprocessing
import os
import resource
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import h5py
from deadly_disk import DeadlyDisk
from photo_album import write_tiny_weights
from small_world import environment, name_of, write_pictures

import pipeline.extraction.parts
from pipeline.cli import main

PICTURES = 24
BROKEN = name_of(5)
LAYERS = "layer1,layer3"


@dataclass(frozen=True)
class Command:
    """An `embed` of some pictures, and what it starts from and ends in when nobody kills it.

    ``before`` and ``after`` are the rows of the cache, as `rows_of` gives them; ``seconds``
    and ``changes`` say how long it takes, and how often it changes the disk.
    """

    photos: Path
    flags: tuple[str, ...]
    old: bytes | None
    before: dict[str, bytes] | None
    after: dict[str, bytes]
    seconds: float
    changes: int

    def begin(self, folder: Path) -> Path:
        """Lay the old cache, if there is one, into a folder of its own."""
        folder.mkdir(parents=True)
        if self.old is not None:
            (folder / "cache.h5").write_bytes(self.old)
        return folder / "cache.h5"

    def start(self, cache: Path, said: Path, **how):
        """Start it in a child; ``how`` is as for `run_embed`."""
        return started(run_embed, (str(self.photos), str(cache), *self.flags), said, **how)


def new_world(folder: Path, *, thorough: bool = False) -> dict[str, Command]:
    """Make pictures, one of them broken, and commands: from nothing, and onto a cache of half.

    A ``thorough`` world has one more, which adds rows and a layer: its network takes a while
    to prepare.
    """
    photos = write_pictures(folder / "photos", range(PICTURES))
    (photos / BROKEN).write_bytes(b"no picture")
    few = write_pictures(folder / "few", range(0, PICTURES, 2))
    weights = write_tiny_weights(folder / "weights.safetensors")
    flags = ("--backbone", "timm/test_resnet", "--weights", str(weights), "--image-size", "32",
             "--batch-size", "4", "--layers", LAYERS)  # fmt: skip
    old = _embedded(few, folder / "old.h5", flags)
    world = {
        "from nothing": _measured(folder / "nothing", photos, flags, None),
        "onto a cache": _measured(folder / "onto", photos, flags, old),
    }
    if thorough:
        more = (*flags[:-1], "layer2")
        shutil.copyfile(old, folder / "first.h5")
        _embedded(photos, folder / "first.h5", more)
        world["with a layer"] = _measured(folder / "layer", photos, more, old)
    return world


def _embedded(photos: Path, cache: Path, flags: tuple[str, ...]) -> Path:
    """Embed, and thereby prepare the network for these layers."""
    said = cache.with_suffix(".said")
    code = ended(started(run_embed, (str(photos), str(cache), *flags), said))
    assert code == 0, said.read_text()
    return cache


def _measured(folder: Path, photos: Path, flags: tuple[str, ...], old: Path | None) -> Command:
    """Run a command undisturbed, once the network has been prepared."""
    content = old.read_bytes() if old else None
    command = Command(photos, flags, content, rows_of(old) if old else None, {}, 0.0, 0)
    cache, said = command.begin(folder), folder / "said"
    began = time.perf_counter()
    code = ended(command.start(cache, said, moment=0))
    seconds = time.perf_counter() - began
    assert code == 0, said.read_text()
    changes = int(said.read_text().splitlines()[-1])
    return Command(photos, flags, content, command.before, rows_of(cache), seconds, changes)


def run_embed(
    words: tuple[str, ...],
    said: Path,
    *,
    moment: int | None = None,
    manner: str = "before",
    at: float = 0.0,
    loses: tuple[Path, ...] = (),
    limit: int | None = None,
) -> None:
    """Be the command, with a part for every batch, as a slow network would make them.

    ``moment`` and ``manner`` are those of a `DeadlyDisk`, which takes ``loses`` away instead,
    if that is given; ``at`` is the time to begin; no file may grow beyond ``limit`` bytes.
    """
    pipeline.extraction.parts._PART_SECONDS = 0.0
    time.sleep(max(0.0, at - time.time()))
    deed = (lambda: [path.rename(away(path)) for path in loses]) if loses else None
    with io.StringIO() as talk:
        disk = None if moment is None else DeadlyDisk(moment, manner, deed).install()
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with redirect_stderr(talk), redirect_stdout(talk):
            code = main(["embed", *words])
        told = talk.getvalue() + (f"\n{disk.changes}" if disk else "")
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    said.write_text(told)
    os._exit(code)


def away(path: Path) -> Path:
    """Where a file or folder goes that is lost for a while."""
    return path.with_name(f"{path.name}.away")


def started(work, *args, **kwargs):
    """Start a function of a module in a child, forked from a server that holds no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["embedding_child", "embed_command"])
    child = context.Process(target=work, args=args, kwargs=kwargs)
    with patch.dict(os.environ, environment()):  # for the server, which is started once
        child.start()
    return child


def ended(child) -> int:
    """Wait for a child, and give its exit code."""
    child.join()
    code = child.exitcode
    child.close()
    return code


def rows_of(cache: Path) -> dict[str, bytes]:
    """Read the bytes of every row, all layers side by side, by h5py alone."""
    with h5py.File(cache) as file:
        ids = file["ids"].asstr()[()].tolist()
        layers = []
        file["layers"].visititems(
            lambda _, item: layers.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return {id: b"".join(layer[row].tobytes() for layer in layers) for row, id in enumerate(ids)}
