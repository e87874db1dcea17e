"""Contents: what a cache says about its rows, without the vectors themselves."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.digest import DIGEST_SIZE
from pipeline.errors import CacheError, CacheMismatchError, OptionError
from pipeline.spec import EmbeddingSpec

__all__ = [
    "FORMAT_VERSION",
    "INPUT",
    "Column",
    "Contents",
    "Failure",
    "backbone_of",
    "check_specs",
    "digests_of",
    "dtype_of",
]

FORMAT_VERSION = 1

INPUT = np.dtype([("digest", "u1", (DIGEST_SIZE,)), ("size", "<i8"), ("mtime_ns", "<i8")])
"""What a row was made of: digest of the content, size in bytes, time of last change."""

KINDS = ("class", "multilabel", "number", "")
_LIBRARIES = ("transfer-pipeline", "numpy", "h5py", "torch", "timm", "openvino", "torchcodec")


@dataclass(frozen=True)
class Failure:
    """An input that has no row, and why.

    An input whose reason lies outside the file (no permission, a missing package) is
    tried again by the next run when it keeps the defaults: they match no content.
    """

    id: str
    reason: str
    digest: bytes = bytes(DIGEST_SIZE)
    size: int = -1
    mtime_ns: int = -1


@dataclass(frozen=True, eq=False)
class Column:
    """One target, or any other column of the table, as a cache keeps it.

    Parameters
    ----------
    kind : {"class", "multilabel", "number", ""}
        ``""`` is a column whose kind nobody has decided yet.
    values : ndarray, shape (n,)
        float64 with NaN where missing, or str with ``""`` where missing. Several labels of
        one row are joined by ``|``; ``"|"`` is a row that is known to have none.

    Raises
    ------
    OptionError
        When the kind is not one of the four.
    """

    kind: str
    values: NDArray[Any]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            accepted = ", ".join(map(repr, KINDS))
            raise OptionError(f"a column is of kind {self.kind!r}, but must be one of {accepted}.")

    @classmethod
    def of(cls, kind: str, cells: Iterable[Any]) -> Self:
        """Make a column of cells: numbers stay numbers, None and NaN are missing.

        Examples
        --------
        >>> Column.of("multilabel", [("cat", "dog"), None, ()]).values.tolist()
        ['cat|dog', '', '|']
        >>> Column.of("", [1, None]).values.tolist()
        [1.0, nan]
        """
        values = [None if _is_missing(cell) else cell for cell in cells]
        present = [value for value in values if value is not None]
        if kind == "number" or (present and all(map(_is_number, present))):
            numbers = [np.nan if value is None else float(value) for value in values]
            return cls(kind, np.array(numbers, dtype=np.float64))
        return cls(kind, _objects([_text(value) for value in values]))

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Column:
        """Give the column of some rows."""
        return Column(self.kind, self.values[np.asarray(rows, dtype=np.intp)])


@dataclass(frozen=True, eq=False)
class Contents:
    """What a cache says about its rows.

    Parameters
    ----------
    ids : tuple of str
        One a row, unique: the order of everything else.
    layers : dict of str to int
        Width of every layer, bottom to top; a name is ``<backbone>/<tap>``.
    specs : dict of str to EmbeddingSpec
        One a backbone.
    inputs : ndarray of `INPUT`, shape (n,)
        What every row was made of.
    targets : dict of str to Column
        Columns of n values.
    failed : tuple of Failure
        The inputs without a row.
    weights : dict of str to str
        Where the weights of a backbone came from; absent where its name says it.
    created : str
        Time of writing, ISO 8601, UTC.
    library_versions : dict of str to str
        Recorded and reported, never compared.

    Raises
    ------
    CacheError
        When the pieces do not fit each other.
    """

    ids: tuple[str, ...]
    layers: dict[str, int]
    specs: dict[str, EmbeddingSpec]
    inputs: NDArray[np.void]
    targets: dict[str, Column] = field(default_factory=dict)
    failed: tuple[Failure, ...] = ()
    weights: dict[str, str] = field(default_factory=dict)
    created: str = field(default_factory=lambda: _now())
    library_versions: dict[str, str] = field(default_factory=lambda: _library_versions())

    def __post_init__(self) -> None:
        _check_unique([*self.ids, *(failure.id for failure in self.failed)])
        _check_length("inputs", len(self.inputs), len(self.ids))
        for name, column in self.targets.items():
            _check_length(f"target {name!r}", len(column.values), len(self.ids))
            if not name:
                raise CacheError("a target has an empty name. Give its column a header.")
        for layer in self.layers:
            if backbone_of(layer) not in self.specs:
                raise CacheError(f"layer {layer!r} has no spec: {sorted(self.specs)} have one.")


def backbone_of(layer: str) -> str:
    """Name the backbone of a layer: what stands before the last ``/``.

    Raises
    ------
    OptionError
        When the name is not ``<backbone>/<tap>``.

    Examples
    --------
    >>> backbone_of("timm/resnet18/layer1")
    'timm/resnet18'
    """
    backbone, _, tap = layer.rpartition("/")
    if not tap or not all(piece.strip(".") for piece in backbone.split("/")) or "\0" in layer:
        raise OptionError(
            f"{layer!r} is no name of a layer: it must be BACKBONE/TAP, as 'clip/features' is."
        )
    return backbone


def dtype_of(layer: str, specs: Mapping[str, EmbeddingSpec]) -> np.dtype[Any]:
    """Type of a layer's stored values, little endian."""
    return np.dtype(specs[backbone_of(layer)].store_dtype).newbyteorder("<")


def digests_of(inputs: NDArray[np.void]) -> list[bytes]:
    """List the content digests of rows as bytes, fit for a dict."""
    packed = np.ascontiguousarray(inputs["digest"]).reshape(-1).view(f"V{DIGEST_SIZE}")
    return [bytes(digest) for digest in packed.tolist()]


def check_specs(
    path: str, held: Mapping[str, EmbeddingSpec], expected: Iterable[EmbeddingSpec]
) -> None:
    """Hold the specs of a file against those that are expected.

    Raises
    ------
    CacheMismatchError
        When a backbone is missing or one of its fields differs, naming both values.
    """
    differences = []
    for spec in expected:
        if spec.backbone not in held:
            differences.append(f"it has no backbone {spec.backbone}, only {', '.join(held)}")
        else:
            differences += held[spec.backbone].difference(spec)
    if differences:
        raise CacheMismatchError(path, differences)


def _check_unique(ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        double = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise CacheError(f"the id {double!r} stands twice, but an id names one row.")


def _check_length(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise CacheError(f"{what} has {found} values for {expected} rows.")


def _is_missing(cell: Any) -> bool:
    return cell is None or cell != cell  # only NaN differs from itself


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, tuple | list | set | frozenset):
        return "|".join(map(str, value)) or "|"
    return "" if value is None else str(value)


def _objects(values: Sequence[str]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _library_versions() -> dict[str, str]:
    """Look the versions up in the installed metadata: nothing is imported."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
