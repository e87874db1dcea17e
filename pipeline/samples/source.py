"""SOURCE: what a path on the command line turns out to be."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import InputError, nearest
from pipeline.samples.folder import list_folder
from pipeline.samples.listing import (
    IMAGE_SUFFIXES,
    Listing,
    escaped,
    naming_failure,
    refuse_empty,
    suffix_of,
)
from pipeline.samples.table import TABLE_SUFFIXES, list_lines, list_table

__all__ = ["list_source", "must_exist"]

_ACCEPTED = (
    "Accepted: a folder of images (best in one subfolder per class), a .csv, .tsv or .parquet "
    "table with a column 'path', a .txt list of paths, or image files."
)


def list_source(paths: Sequence[Path], *, follow_outside: bool = False) -> Listing:
    """List a folder, a table, a list, one image file or several.

    Several files keep their order; one that is named twice is listed once. Files that are
    named here may lie anywhere; what a folder, a table or a list leads to may lie outside
    its folder only with ``follow_outside``.

    Raises
    ------
    InputError
        If there is nothing there, or nothing that can be used.
    """
    if not paths:
        raise InputError(f"no source was given. {_ACCEPTED}")
    for path in paths:
        must_exist(path)
    if len(paths) > 1:
        return _list_files(paths)
    (path,) = paths
    suffix = suffix_of(path.name)
    if path.is_dir():
        return list_folder(path, follow_outside=follow_outside)
    if suffix in TABLE_SUFFIXES:
        return list_table(path, follow_outside=follow_outside)
    if suffix == ".txt":
        return list_lines(path, follow_outside=follow_outside)
    if suffix in IMAGE_SUFFIXES:
        return _list_files(paths)
    raise InputError(f"{path} is neither a table nor an image. {_ACCEPTED}")


def must_exist(path: Path) -> None:
    """Refuse a path that leads nowhere.

    Raises
    ------
    InputError
        With the nearest name beside it.
    """
    if os.path.exists(path):  # unlike Path.exists, False for what can be no path
        return
    try:
        beside = os.listdir(path.parent)
    except OSError:
        beside = []
    guess = nearest(path.name, beside)
    hint = f" Did you mean {str(path.parent / guess)!r}?" if guess else ""
    raise InputError(f"{path} does not exist.{hint} {_ACCEPTED}")


def _list_files(paths: Sequence[Path]) -> Listing:
    """Images among several files; what has no image suffix is counted, as in a folder."""
    ids: dict[str, Path] = {}
    failed: list[tuple[str, str]] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        name, suffix = path.as_posix(), suffix_of(path.name)
        if path.is_dir():
            raise InputError(
                f"{path} is a folder among {len(paths)} sources. Give one folder alone, or files."
            )
        if name in ids:
            skipped["repeated row"] += 1
        elif suffix not in IMAGE_SUFFIXES:
            skipped[suffix or "without suffix"] += 1
        elif reason := naming_failure(name):
            failed.append((escaped(name), reason))
        else:
            ids[name] = path
    listing = Listing(list(ids), list(ids.values()), Path(), failed=failed, skipped=skipped)
    return refuse_empty(listing, paths[0].parent, _ACCEPTED)
