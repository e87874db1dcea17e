"""Tables and lists of paths: CSV, Parquet, data frames, text files."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, nearest
from pipeline.samples.cell import unguarded
from pipeline.samples.column import Column, clean_column
from pipeline.samples.listing import Listing, escaped, naming_failure, refuse_empty
from pipeline.samples.split import PART_NAMES, read_parts

__all__ = [
    "PATH",
    "SPLIT",
    "TABLE_SUFFIXES",
    "frame_columns",
    "list_frame",
    "list_lines",
    "list_table",
]

PATH = "path"
"""The column that says where a row's file lies."""

SPLIT = "split"
"""A column of this name that holds nothing but parts is a given split."""

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})

_DELIMITERS = ",;\t"
_INDEX_NAMES = ("", "__index_level_0__")  # what pandas writes for its index
_TABLE_REMEDY = f"A table needs a column {PATH!r} with paths relative to it, one row a file."
_LIST_REMEDY = "A list has one path a line."


def list_table(file: Path, *, follow_outside: bool = False) -> Listing:
    """List the rows of a CSV or Parquet file.

    Paths are relative to the file. Of rows that name one file, the first stays: another
    that says the same is counted as repeated, one that says otherwise is a failure.

    Parameters
    ----------
    file : Path
        ``.csv`` and ``.tsv`` in UTF-8, divided by comma, semicolon or tab; ``.parquet``.
        Every cell of a CSV file is text; see `unguarded` for one that begins with ``'=``.
    follow_outside : bool
        Whether a path may lead out of the table's folder, by itself or through links. If
        not, such a row is a failure.

    Raises
    ------
    InputError
        If the file cannot be read, has no column ``path`` or no usable row.
    """
    columns = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_csv(file)
    return _list_rows(columns, file.parent, file, follow_outside)


def list_frame(frame: Any, root: Path, *, follow_outside: bool = True) -> Listing:
    """List the rows of a data frame of any library that narwhals knows; see `list_table`.

    Raises
    ------
    InputError
        If it is no data frame, has no column ``path`` or no usable row.
    """
    columns = {name: clean_column(cells) for name, cells in frame_columns(frame).items()}
    return _list_rows(columns, root, Path("the data frame"), follow_outside)


def frame_columns(frame: Any) -> dict[Any, list[Any]]:
    """Give the columns of a data frame of any library that narwhals knows.

    Raises
    ------
    InputError
        If it is no data frame.
    """
    import narwhals as nw

    try:
        eager = nw.from_native(frame)
    except TypeError:
        raise InputError(
            f"a {type(frame).__name__} is no data frame. Accepted: pandas, polars, pyarrow and "
            "whatever else narwhals reads."
        ) from None
    eager = eager.collect() if isinstance(eager, nw.LazyFrame) else eager
    return {name: eager[name].to_list() for name in eager.columns}


def list_lines(file: Path, *, follow_outside: bool = False) -> Listing:
    """List the paths in a text file: one a line; else as `list_table`.

    Raises
    ------
    InputError
        If no line holds a path.
    """
    text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    cells = clean_column(line for line in lines if line.strip())
    rows = _Rows(file.parent, "list", follow_outside)
    rows.read(cells, {})
    return refuse_empty(rows.listing(file.parent, {}, None), file, _LIST_REMEDY)


def _list_rows(
    columns: dict[str, Column], root: Path, source: Path, follow_outside: bool
) -> Listing:
    cells = _path_column(columns, source)
    others = {name: columns[name] for name in columns if name not in (PATH, *_INDEX_NAMES)}
    rows = _Rows(root, "table", follow_outside)
    rows.read(cells, others)
    kept = {name: column[rows.kept] for name, column in others.items()}
    split = None
    if SPLIT in kept and all(str(c or "train").strip().lower() in PART_NAMES for c in kept[SPLIT]):
        split = read_parts(kept.pop(SPLIT))
    return refuse_empty(rows.listing(root, kept, split), source, _TABLE_REMEDY)


class _Rows:
    """Turns cells of the path column into ids, and accounts for every one."""

    def __init__(self, root: Path, source: str, follow_outside: bool) -> None:
        self.root = os.path.abspath(root)
        self.follow_outside = follow_outside
        self._outside = f"leads out of the folder of the {source}; --follow-outside reads it anyway"
        self._real_root = Path(os.path.realpath(root))
        self._real_folders: dict[str, Path] = {}
        self.kept: list[int] = []
        self.ids: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.repeated = 0
        self._used: set[str] = set()

    def read(self, cells: Column, others: Mapping[str, Column]) -> None:
        first: dict[str, int] = {}
        for row, cell in enumerate(cells):
            name, reason = self._named(cell)
            if reason:
                self._fail(name, row, reason)
            elif name not in first:
                first[name] = row
                self._used.add(name)
                self.kept.append(row)
                self.ids.append(name)
            elif all(column[row] == column[first[name]] for column in others.values()):
                self.repeated += 1
            else:
                self._fail(name, row, f"stands in row {first[name] + 1} too, with other values")

    def listing(
        self, root: Path, columns: Mapping[str, Column], split: Sequence[str] | None
    ) -> Listing:
        paths = [Path(os.path.join(root, name)) for name in self.ids]
        skipped = {"repeated row": self.repeated} if self.repeated else {}
        return Listing(self.ids, paths, root, columns, split, self.failed, skipped)

    def _fail(self, name: str, row: int, reason: str) -> None:
        """Keep a row in the ledger, under an id that nothing else has."""
        plain = escaped(name)
        if not plain or plain in self._used:
            plain = f"{plain} (row {row + 1})".strip()
        self._used.add(plain)
        self.failed.append((plain, reason))

    def _named(self, cell: Any) -> tuple[str, str | None]:
        """Id of a path, and what is wrong with it."""
        if cell is None:
            return "", f"no {PATH} in this row"
        text = str(cell).replace(os.sep, "/")
        base = self.root.rstrip("/") + "/"
        full = posixpath.normpath(posixpath.join(base, text))
        inside = full.startswith(base)
        name = full.removeprefix(base) if inside else posixpath.normpath(text)
        if full == self.root:
            return name, "a folder, not a file"
        if not inside and not self.follow_outside:
            return name, self._outside
        if reason := naming_failure(name):
            return name, reason
        return name, None if self.follow_outside or self._stays(full) else self._outside

    def _stays(self, path: str) -> bool:
        """Whether a path stays in the folder when its links are followed; one lstat a file."""
        folder = os.path.dirname(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = Path(os.path.realpath(folder))
        real = Path(os.path.realpath(path)) if os.path.islink(path) else self._real_folders[folder]
        return real.is_relative_to(self._real_root)


def _path_column(columns: Mapping[str, Column], source: Path) -> Column:
    if PATH not in columns:
        guess = nearest(PATH, columns)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise InputError(
            f"{source} has no column {PATH!r}.{hint} Its columns: {', '.join(columns)}. "
            f"{_TABLE_REMEDY}"
        )
    if not len(columns[PATH]):
        raise InputError(f"{source} has a header and no rows. {_TABLE_REMEDY}")
    return columns[PATH]


def _read_parquet(file: Path) -> dict[str, Column]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except pa.ArrowException as error:
        raise InputError(f"{file} is not a Parquet file: {_first_line(error)}") from None
    return _columns(table.column_names, [column.to_pylist() for column in table.columns], file)


def _read_csv(file: Path) -> dict[str, Column]:
    """Read every cell as text: pyarrow would make 7 of ``007``."""
    import pyarrow as pa
    import pyarrow.csv

    delimiter, header, rows_above = _header(file)
    unique = [str(place) for place in range(len(header))]
    try:
        table = pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(
                column_names=unique, skip_rows_after_names=rows_above + 1
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(unique, pa.string())
            ),
        )
    except pa.ArrowException as error:
        raise InputError(
            f"{file} cannot be read as CSV: {_first_line(error)}. Accepted: UTF-8 text with one "
            "header line and as many cells in every row, divided by comma, semicolon or tab."
        ) from None
    names = [unguarded(name) for name in header]
    return _columns(names, [map(_unguarded, column.to_pylist()) for column in table.columns], file)


def _unguarded(cell: str | None) -> str | None:
    return cell and unguarded(cell)


def _header(file: Path) -> tuple[str, list[str], int]:
    """Find the delimiter that divides the header, the names it makes, blank lines above it."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            start = text.read(1 << 20)
    except UnicodeDecodeError:
        raise InputError(
            f"{file} is not UTF-8 text. Save it as UTF-8 (in a spreadsheet: CSV UTF-8)."
        ) from None
    if not start.strip():
        raise InputError(f"{file} is empty. {_TABLE_REMEDY}")
    lines = list(io.StringIO(start, newline=""))
    blank = next(row for row, line in enumerate(lines) if line.strip("\r\n"))
    headers = {d: next(csv.reader(lines[blank:], delimiter=d)) for d in _DELIMITERS}
    delimiter = max(headers, key=lambda d: (PATH in map(str.strip, headers[d]), len(headers[d])))
    return delimiter, [name.strip() for name in headers[delimiter]], blank


def _columns(names: Sequence[str], columns: Iterable[Any], file: Path) -> dict[str, Column]:
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise InputError(
            f"{file} has more than one column called {repeated[0]!r}. Rename all but one."
        )
    return dict(zip(names, map(clean_column, columns), strict=True))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
