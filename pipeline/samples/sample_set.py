"""SampleSet: the inputs, their names and their labels, before anything is read."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.samples.choice import choose_targets
from pipeline.samples.column import Column, clean_column, stored_column
from pipeline.samples.folder import list_folder
from pipeline.samples.listing import Listing, counted, escaped
from pipeline.samples.source import list_source, must_exist
from pipeline.samples.table import list_frame, list_table
from pipeline.samples.target import Target

__all__ = ["SampleSet"]


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Inputs with their ids and labels.

    Parameters
    ----------
    ids : tuple of str
        Unique names: posix paths relative to the root, or given names.
    sources : tuple
        What is read for each id: a Path, bytes, a PIL image or a uint8 array.
    modality : str
        What the sources are: ``"image"``.
    columns : dict of str to column
        Every column of labels, cells as given (see `clean_column`); kinds are decided by
        `targets` and `choose_targets`.
    split : tuple of {"train", "val", "test", ""}, optional
        The given split.
    failed : tuple of (str, str)
        Id and reason of inputs that cannot become a row, known before reading.
    skipped : dict of str to int
        What was passed over, counted by suffix or by what it is.
    root : Path, optional
        What relative ids are relative to.

    Examples
    --------
    >>> samples = SampleSet.from_list(["a/1.jpg", "b/2.jpg"], {"label": ["owl", "elk"]})
    >>> print(samples.summary())
    2 images, 2 classes (smallest: elk, 1)
    """

    ids: tuple[str, ...]
    sources: tuple[Any, ...]
    modality: str = "image"
    columns: dict[str, Column] = field(default_factory=dict)
    split: tuple[str, ...] | None = None
    failed: tuple[tuple[str, str], ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)
    root: Path | None = None

    def __post_init__(self) -> None:
        repeated = [name for name, times in Counter(self.ids).items() if times > 1]
        if repeated:
            raise InputError(
                f"the id {repeated[0]!r} stands more than once. Every row needs an id of its own."
            )
        columns = {"sources": self.sources, "split": self.split, **self.columns}
        for name, column in columns.items():
            if column is not None and len(column) != len(self.ids):
                raise InputError(
                    f"{name!r} has {len(column)} values, but there are {len(self.ids)} rows. "
                    "Give one value for each row."
                )

    @classmethod
    def from_source(
        cls, source: str | os.PathLike[str] | Sequence[Any], *, follow_outside: bool = False
    ) -> Self:
        """Read whatever a SOURCE is: a folder, a table, a list, one file or several.

        Parameters
        ----------
        source : path or sequence of paths
            A folder (`from_folder`), a ``.csv``, ``.tsv`` or ``.parquet`` table
            (`from_table`), a ``.txt`` file with one path a line, an image file, or several
            image files.
        follow_outside : bool
            Whether links in a folder, and paths and links in a table or list, may lead out
            of its folder; if not, such inputs go to `failed`. Files that are named here are
            read wherever they lie.

        Raises
        ------
        InputError
            If there is nothing there, or nothing that can be used.
        """
        several = [source] if isinstance(source, str | os.PathLike) else list(source)
        paths = [Path(path) for path in several]
        return cls._from_listing(list_source(paths, follow_outside=follow_outside))

    @classmethod
    def from_folder(cls, root: str | os.PathLike[str], *, follow_outside: bool = False) -> Self:
        """Read a folder: the first folder below it is the class.

        Subfolders that are all called train, val, valid, validation or test are a given
        split with the class folders below. The target is called ``label``. Rows stand in the
        order of their ids.

        Parameters
        ----------
        root : path
        follow_outside : bool
            Whether links may lead out of the folder; if not, they go to `failed`.

        Raises
        ------
        InputError
            If there is no such folder, or no usable image in it.
        """
        path = _must_be(Path(root), "folder")
        return cls._from_listing(list_folder(path, follow_outside=follow_outside))

    @classmethod
    def from_table(cls, file: str | os.PathLike[str], *, follow_outside: bool = False) -> Self:
        """Read a CSV or Parquet table with a column ``path`` and any number of others.

        Rows stand in the table's order. An empty cell is missing. A column ``split`` that holds
        nothing but train, val, valid, validation and test is the given split. A row without
        a path, or with other values for a file that stands above, goes to `failed`.

        Parameters
        ----------
        file : path
            ``.csv``, ``.tsv`` or ``.parquet``. Paths in it are relative to its folder.
        follow_outside : bool
            Whether paths may lead out of that folder, by themselves or through links; if
            not, such rows go to `failed`.

        Raises
        ------
        InputError
            If the table cannot be read, or has no column ``path`` or no usable row.
        """
        path = _must_be(Path(file), "file")
        return cls._from_listing(list_table(path, follow_outside=follow_outside))

    @classmethod
    def from_frame(
        cls, frame: Any, *, root: str | os.PathLike[str] = "", follow_outside: bool = True
    ) -> Self:
        """Read a pandas, polars or pyarrow table as `from_table` reads a file.

        Parameters
        ----------
        frame : data frame
            With a column ``path``.
        root : path
            What its paths are relative to; by default the working folder.
        follow_outside : bool
            Whether paths may lead out of the root; they are the caller's own.

        Raises
        ------
        InputError
            If it is no data frame, or has no column ``path`` or no usable row.
        """
        return cls._from_listing(list_frame(frame, Path(root), follow_outside=follow_outside))

    @classmethod
    def from_list(
        cls,
        sources: Iterable[Any],
        targets: Mapping[str, Iterable[Any]] | None = None,
        *,
        ids: Iterable[str] | None = None,
    ) -> Self:
        """Take paths, PIL images, arrays and encoded bytes, in this order, mixed as you like.

        No row is dropped, so labels stay aligned. Without ``ids`` a path is its own id, and
        stands again as ``PATH#2``; anything else is called by its position, ``007``.

        Parameters
        ----------
        sources : iterable
            Paths (str or PathLike), PIL images, bytes of an image file, or uint8 arrays of
            shape (H, W) or (H, W, channels).
        targets : mapping of str to cells, optional
            A value for each source in each column; None, NaN and ``""`` are missing.
        ids : iterable of str, optional
            Unique names.

        Raises
        ------
        InputError
            For a source of another type, columns of another length, or ids that repeat.
        """
        taken = tuple(_source(item, place) for place, item in enumerate(sources))
        return cls(
            ids=_own_ids(taken) if ids is None else tuple(str(name) for name in ids),
            sources=taken,
            columns={name: clean_column(cells) for name, cells in (targets or {}).items()},
        )

    @classmethod
    def from_arrays(
        cls,
        images: NDArray[np.uint8],
        targets: Mapping[str, Iterable[Any]] | None = None,
        *,
        ids: Iterable[str] | None = None,
    ) -> Self:
        """Take images as one array.

        Parameters
        ----------
        images : ndarray of shape (n, H, W) or (n, H, W, 3), uint8
            Grey or RGB images.
        targets, ids
            As in `from_list`.

        Raises
        ------
        InputError
            For another shape or dtype.
        """
        array = np.asarray(images)
        if array.dtype != np.uint8 or not (array.ndim == 3 or array.shape[3:] == (3,)):
            raise InputError(
                f"images has the shape {array.shape} and dtype {array.dtype}. Accepted: uint8 of "
                "shape (n, height, width) or (n, height, width, 3). Scale values to 0 to 255 and "
                "move the channels last."
            )
        return cls.from_list(array, targets, ids=ids)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def targets(self) -> dict[str, Target]:
        """Every column with its kind decided; `choose_targets` decides only some."""
        return {
            name: Target.decide(name, self.columns[name], ids=self.ids) for name in self.columns
        }

    def choose_targets(
        self,
        names: Sequence[str] = (),
        kinds: Mapping[str, str] | None = None,
        *,
        besides: Collection[str] = (),
    ) -> dict[str, Target]:
        """Choose the columns to predict; see `pipeline.samples.choose_targets`."""
        return choose_targets(self.columns, names, kinds, besides=besides, ids=self.ids)

    def stored_columns(self) -> dict[str, Column | NDArray[np.float64]]:
        """Every column as a cache keeps it: text (``""`` missing) or float64 (NaN missing)."""
        return {name: stored_column(column) for name, column in self.columns.items()}

    def subset(self, rows: NDArray[Any] | Sequence[int]) -> Self:
        """Keep these rows, in this order.

        Parameters
        ----------
        rows : sequence of int, or mask of shape (n,)
            Positions without repeats. What was skipped or failed stays with the whole.
        """
        chosen = np.arange(len(self))[np.asarray(rows, dtype=None if len(rows) else np.int64)]
        return dataclasses.replace(
            self,
            ids=tuple(self.ids[row] for row in chosen),
            sources=tuple(self.sources[row] for row in chosen),
            columns={name: column[chosen] for name, column in self.columns.items()},
            split=None if self.split is None else tuple(self.split[row] for row in chosen),
            failed=(),
            skipped={},
        )

    def summary(self) -> str:
        """Say in one line what was understood.

        Examples
        --------
        >>> table = {"species": ["owl", "", "elk"], "age": [1.5, 2, 3]}
        >>> print(SampleSet.from_list(["1.jpg", "2.jpg", "3.jpg"], table).summary())
        3 images, columns species, age
        """
        parts = [counted(len(self), self.modality), *self._labels_in_words()]
        if self.split is not None:
            sizes = Counter(self.split)
            named = [f"{sizes[part]} {part}" for part in ("train", "val", "test") if sizes[part]]
            parts.append(f"given split ({', '.join(named)})")
        if self.failed:
            parts.append(f"{counted(len(self.failed), 'input')} unusable")
        if repeated := self.skipped.get("repeated row", 0):
            parts.append(counted(repeated, "repeated row"))
        if files := sum(self.skipped.values()) - repeated:
            parts.append(f"{counted(files, 'file')} skipped")
        return ", ".join(parts)

    def _labels_in_words(self) -> list[str]:
        if not self.columns:
            return ["no labels"]
        if len(self.columns) > 1:
            return [f"columns {', '.join(self.columns)}"]
        (name,) = self.columns
        target = Target.decide(name, self.columns[name], ids=self.ids)
        missing = len(self) - int(target.present.sum())
        spread = target.spread() if target.kind == "class" else f"{name} {target.spread()}"
        return [spread] + ([f"{missing} unlabelled"] if missing else [])

    @classmethod
    def _from_listing(cls, listing: Listing) -> Self:
        return cls(
            ids=tuple(listing.ids),
            sources=tuple(listing.paths),
            columns=dict(listing.columns),
            split=None if listing.split is None else tuple(listing.split),
            failed=tuple(listing.failed),
            skipped=dict(listing.skipped),
            root=listing.root,
        )


def _must_be(path: Path, kind: str) -> Path:
    must_exist(path)
    if not (path.is_dir() if kind == "folder" else path.is_file()):
        raise InputError(f"{path} is not a {kind}. SampleSet.from_source takes either.")
    return path


def _source(item: Any, place: int) -> Any:
    from PIL.Image import Image

    if isinstance(item, str | os.PathLike):
        return Path(item)
    if isinstance(item, bytes | Image):
        return item
    if isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim in (2, 3):
        return item
    got = type(item).__name__
    if isinstance(item, np.ndarray):
        got = f"array of shape {item.shape} and dtype {item.dtype}"
    raise InputError(
        f"input {place} is of type {got}. Accepted: a path, a PIL image, bytes of an image file, "
        "or a uint8 array of shape (height, width) or (height, width, channels)."
    )


def _own_ids(sources: Sequence[Any]) -> tuple[str, ...]:
    """Paths by name, the rest by position; a name that stands again gets a number."""
    digits = len(str(len(sources) - 1))
    taken: dict[str, None] = {}
    times: Counter[str] = Counter()
    for place, source in enumerate(sources):
        plain = escaped(source.as_posix()) if isinstance(source, Path) else f"{place:0{digits}}"
        times[plain] += 1
        name = plain if times[plain] == 1 else f"{plain}#{times[plain]}"
        while name in taken:
            times[plain] += 1
            name = f"{plain}#{times[plain]}"
        taken[name] = None
    return tuple(taken)
