"""A folder of images: its class folders, its given split, what is no image.

One pass of ``os.scandir`` without a ``stat`` for each file: size and time are read later.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import InputError
from pipeline.samples.choice import LABEL
from pipeline.samples.column import clean_column
from pipeline.samples.listing import (
    IMAGE_SUFFIXES,
    Listing,
    escaped,
    naming_failure,
    refuse_empty,
    suffix_of,
)
from pipeline.samples.split import PART_NAMES

__all__ = ["list_folder"]

_LOOP = "a link back to a folder that is being listed"
_OUTSIDE = "a link that leads out of the folder; --follow-outside reads it anyway"
_NOT_ENTERED = frozenset({"__MACOSX", "Thumbs.db"})
_REMEDY = "Give a folder with images, best in one subfolder per class."


def list_folder(root: Path, *, follow_outside: bool = False) -> Listing:
    """List the images below a folder, in the order of their posix ids.

    The first folder below the root is the class, deeper ones do not matter; images beside
    class folders have no label. If all subfolders are called train, val, valid, validation
    or test, they are a given split, and the class is the first folder below them.

    Links that lead out of the folder are followed when that is asked for; else they are
    failures, as are links to a folder that is being listed. Hidden names, ``Thumbs.db``,
    ``__MACOSX`` and files without an image suffix are counted. What has an image's name and
    is none (a pipe, a link to nothing, a folder without images) and names that are not UTF-8
    are failures.

    Raises
    ------
    InputError
        If the folder cannot be read or holds no usable image.
    """
    walk = _Walk(root, follow_outside)
    ids = sorted(walk.images)
    parts = _given_parts(ids)
    labels = [_label(name, depth=0 if parts is None else 1) for name in ids]
    base = os.fspath(root).rstrip("/")
    listing = Listing(
        ids=ids,
        paths=[Path(f"{base}/{name}") for name in ids],
        root=root,
        columns={LABEL: clean_column(labels)} if any(labels) else {},
        split=parts,
        failed=sorted(walk.failed),
        skipped=dict(walk.skipped),
    )
    return refuse_empty(listing, root, _REMEDY)


def _given_parts(ids: Sequence[str]) -> list[str] | None:
    tops = [name.partition("/")[0].lower() if "/" in name else "" for name in ids]
    if not any(tops) or not set(tops) <= {"", *PART_NAMES}:
        return None
    return [PART_NAMES[top] if top else "" for top in tops]


def _label(name: str, depth: int) -> str | None:
    folders = name.split("/", depth + 1)[:-1]
    return folders[depth] if len(folders) > depth else None


class _Walk:
    """Everything below a folder, sorted into images, failures and what is passed over.

    A link is followed along the chain of folders that led to it: real paths of the root and
    of every linked folder entered on the way.
    """

    def __init__(self, root: Path, follow_outside: bool) -> None:
        self.images: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.skipped: Counter[str] = Counter()
        self._root = os.fspath(root).rstrip("/")
        real = Path(os.path.realpath(root))
        self._fence = None if follow_outside else real
        chain: tuple[Path, ...] = (real,)
        self._folders = [("", chain)]
        suspects = []
        while self._folders:
            prefix, chain = self._folders.pop()
            if suffix_of(prefix.rstrip("/")) in IMAGE_SUFFIXES:
                suspects.append(prefix)
            self._scan(prefix, chain)
        for prefix in suspects:
            if not any(name.startswith(prefix) for name in self.images):
                self._fail(prefix.rstrip("/"), "a folder, not a file")

    def _scan(self, prefix: str, chain: tuple[Path, ...]) -> None:
        try:
            with os.scandir(f"{self._root}/{prefix}") as entries:
                for entry in entries:
                    self._sort_in(entry, prefix + entry.name, chain)
        except OSError as error:
            reason = f"the folder cannot be read: {error.strerror}"
            if not prefix:
                raise InputError(f"{self._root or '/'}: {reason}. {_REMEDY}") from None
            self._fail(prefix.rstrip("/"), reason)

    def _sort_in(self, entry: os.DirEntry[str], name: str, chain: tuple[Path, ...]) -> None:
        if entry.name in _NOT_ENTERED:
            self.skipped[entry.name] += 1
        elif entry.name.startswith("."):
            self.skipped["hidden"] += 1
        elif _is(entry, "dir"):
            self._enter(entry, name, chain)
        elif suffix_of(entry.name) not in IMAGE_SUFFIXES:
            self.skipped[escaped(suffix_of(entry.name)) or "without suffix"] += 1
        elif reason := naming_failure(name) or _file_failure(entry) or self._leading_out(entry):
            self._fail(name, reason)
        else:
            self.images.append(name)

    def _enter(self, entry: os.DirEntry[str], name: str, chain: tuple[Path, ...]) -> None:
        if entry.is_symlink():
            real = Path(os.path.realpath(entry.path))
            if any(real.is_relative_to(own) or own.is_relative_to(real) for own in chain):
                self._fail(name, _LOOP)
                return
            if reason := self._leading_out(entry):
                self._fail(name, reason)
                return
            chain = (*chain, real)
        self._folders.append((f"{name}/", chain))

    def _leading_out(self, entry: os.DirEntry[str]) -> str | None:
        if self._fence is None or not entry.is_symlink():
            return None
        inside = Path(os.path.realpath(entry.path)).is_relative_to(self._fence)
        return None if inside else _OUTSIDE

    def _fail(self, name: str, reason: str) -> None:
        self.failed.append((escaped(name), reason))


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:  # a link to itself
        return False


def _file_failure(entry: os.DirEntry[str]) -> str | None:
    if _is(entry, "file"):
        return None
    return "a link to nothing" if entry.is_symlink() else "not a regular file"
