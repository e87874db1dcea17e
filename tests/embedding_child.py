"""What a child process runs to be killed: forked from a server that holds no threads."""

import functools
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from small_world import EagerBackbone, environment, small_network

import pipeline.extraction.parts
from pipeline.backbones import Backbone
from pipeline.config import EmbedOptions
from pipeline.embedding import ContentCache, embed
from pipeline.samples import SampleSet

MOMENTS = ("fsync", "replace", "unlink", "rmdir")
OPTIONS = EmbedOptions(batch_size="4", precision="float32")
DEAD = 9


@functools.cache
def eager_backbone() -> Backbone:
    """Made in the child: the server must not run a network, for threads do not survive a fork."""
    return EagerBackbone("small", small_network())


def embed_in_parts(photos: Path, cache: Path, layers: str | None = None) -> None:
    """Embed with a part for every batch, as a slow network would."""
    options = replace(OPTIONS, layers=layers)
    with patch.object(pipeline.extraction.parts, "_PART_SECONDS", 0.0):
        embed(SampleSet.from_folder(photos), eager_backbone(), cache, options=options).close()


def die_at(moment: int, before: bool) -> None:
    """Let the process end, without a word, at its n-th call that changes the disk."""
    count = 0

    def dying(call):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if before and count == moment:
                os._exit(DEAD)
            try:
                return call(*args, **kwargs)
            finally:
                if count == moment:
                    os._exit(DEAD)

        return wrapped

    for name in MOMENTS:
        setattr(os, name, dying(getattr(os, name)))


def killed(moment: int, photos: Path, cache: Path, layers: str | None = None) -> None:
    die_at(moment, before=moment % 4 == 1)
    embed_in_parts(photos, cache, layers)


def embed_forbidden(photos: Path, cache: Path) -> None:
    """Embed as a user who may not read everything: root becomes nobody, once all is imported."""
    embed(SampleSet.from_folder(photos / "a"), eager_backbone(), f"{cache}.first").close()
    if os.geteuid() == 0:
        os.seteuid(65534)
    embed(SampleSet.from_folder(photos), eager_backbone(), cache, options=OPTIONS).close()


def in_child(work, *args) -> int:
    """Run a function of this module in a child, and give its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["embedding_child"])
    child = context.Process(target=work, args=args)
    with patch.dict(os.environ, environment()):  # for the server, which is started once
        child.start()
    child.join()
    code = child.exitcode
    child.close()
    return code


def at_once(photos: Path, cache: Path) -> None:
    """Embed in three processes at the same time: two wait."""
    _in_forks(lambda turn: embed_in_parts(photos, cache), 3)


def fetch_at_once(photos: list[Path], folder: Path) -> None:
    """Fetch overlapping shares of the pictures in three processes from one folder."""

    def fetch(turn: int) -> None:
        cache = ContentCache(folder, eager_backbone(), "all", OPTIONS)
        share = photos[2 * turn : 2 * turn + 4]
        if len(cache.fetch(share).X) != len(share):
            raise AssertionError(turn)

    _in_forks(fetch, 3)


def _in_forks(work, count: int) -> None:
    children = []
    for turn in range(count):
        children.append(os.fork())
        if not children[-1]:
            code = 70
            try:
                work(turn)
                code = 0
            finally:
                os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os._exit(max(codes))
