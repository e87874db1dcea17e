"""EmbeddingStore: an open cache, read as one matrix."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.blocks import BLOCK_ROWS, BlockGuard
from pipeline.cache.contents import Column, Contents, Failure, check_specs, dtype_of
from pipeline.cache.foreign import foreign_contents, grown
from pipeline.cache.lock import CacheLock
from pipeline.cache.parts import PartFolder
from pipeline.cache.seal import check_seal
from pipeline.cache.writing import write_cache
from pipeline.errors import CacheDamagedError, CacheError, OptionError, UnknownNameError
from pipeline.spec import EmbeddingSpec

__all__ = ["EmbeddingStore"]

Rows = NDArray[Any] | Sequence[int] | Sequence[bool] | slice | None


class EmbeddingStore:
    """An open handle on a cache: vectors of many layers, row by row, with ids and targets.

    Use `open` for a cache on disk and `from_arrays` for vectors computed elsewhere.

    A handle keeps the view it was opened with: a cache that is written meanwhile takes the
    old one's place by a rename, which an open handle does not see.

    Examples
    --------
    >>> import numpy as np
    >>> vectors = {"clip/low": np.eye(3), "clip/high": np.ones((3, 2))}
    >>> store = EmbeddingStore.from_arrays(vectors, ["a", "b", "c"], {"label": ["x", "y", None]})
    >>> X, layer_slices = store.matrix(["low"], rows=[2, 0])
    >>> X.tolist(), layer_slices
    ([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], {'clip/low': slice(0, 3, None)})
    >>> store.matrix()[0].shape
    (3, 5)
    """

    path: Path | None
    """The file; ``None`` for a store in memory."""

    def __init__(
        self,
        contents: Contents,
        arrays: Mapping[str, NDArray[Any]],
        *,
        path: Path | None = None,
        guards: Mapping[str, BlockGuard] | None = None,
        content: mmap.mmap | None = None,
    ) -> None:
        self.path, self._contents = path, contents
        self._arrays, self._guards = dict(arrays), dict(guards or {})
        self._content, self._closed = content, False

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        expect: EmbeddingSpec | Iterable[EmbeddingSpec] | None = None,
    ) -> Self:
        """Open a finished cache, after its seal has been checked.

        Parameters
        ----------
        path : str or Path
            The cache.
        expect : EmbeddingSpec or iterable of them, optional
            Backbones that it must hold, embedded exactly so.

        Raises
        ------
        CacheError
            When there is no finished cache, or the file is not one, or of a newer format.
        CacheDamagedError
            When its bytes are not those that were written.
        CacheMismatchError
            When it was made by another spec, naming the fields that differ.
        """
        path = Path(path)
        with _opened(path) as file:  # one handle for all: a rename meanwhile changes nothing
            store = cls._mapped(path, file)
        if expect is not None:
            expected = [expect] if isinstance(expect, EmbeddingSpec) else expect
            check_specs(str(path), store.specs, expected)
        return store

    @classmethod
    def from_arrays(
        cls,
        layers: Mapping[str, Any],
        ids: Sequence[str],
        targets: Mapping[str, Column | Iterable[Any]] | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        specs: Mapping[str, EmbeddingSpec] | None = None,
    ) -> Self:
        """Make a store of vectors that were computed elsewhere.

        Parameters
        ----------
        layers : mapping of str to array-like, shape (n, width)
            Bottom to top; a name is ``<backbone>/<tap>``. float16 is stored as it is,
            every other type as float32.
        ids : sequence of str
            n unique names of rows.
        targets : mapping of str to Column or sequence, optional
            A sequence is kept as text whose kind is decided later, as cells of a table are.
        path : str or Path, optional
            Write a cache there (one that stands there is replaced); without it the store
            lives in memory.
        specs : mapping of str to EmbeddingSpec, optional
            One a backbone, when known. Else a spec is made whose ``weights_digest`` is the
            digest of the given arrays: nothing else is known of where they come from.

        Raises
        ------
        CacheError
            When lengths differ, ids repeat, or a value is not finite.
        OptionError
            When a layer's name is not ``<backbone>/<tap>``.
        """
        contents, arrays = foreign_contents(layers, ids, targets or {}, specs)
        memory = cls(contents, arrays)
        if path is None:
            return memory
        with CacheLock(path, wait=True):
            write_cache(Path(path), contents, lambda layer, window: arrays[layer][window])
        return cls.open(path)

    @classmethod
    def _mapped(cls, path: Path, file: BinaryIO) -> Self:
        from pipeline.cache.layout import read_layout  # loads h5py

        sealed = check_seal(file).extents
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        layout = read_layout(file, content)
        if sealed != tuple(sorted(extent for extent in layout.extents.values() if extent[1])):
            raise CacheDamagedError(
                f"{path} has layers where its seal knows none. Embed into another file."
            )
        contents, arrays, guards = layout.contents, {}, {}
        for layer, width in contents.layers.items():
            values = _view(content, layout.extents[layer], dtype_of(layer, contents.specs))
            arrays[layer] = values.reshape(len(contents.ids), width)
            checksums = _view(content, layout.checksum_extents[layer], np.dtype("<u8"))
            guards[layer] = BlockGuard(arrays[layer], checksums)
        return cls(contents, arrays, path=path, guards=guards, content=content)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in their order."""
        return self._contents.ids

    @property
    def layers(self) -> dict[str, int]:
        """Width of every layer, bottom to top."""
        return dict(self._contents.layers)

    @property
    def specs(self) -> dict[str, EmbeddingSpec]:
        """How the vectors were made, one a backbone."""
        return dict(self._contents.specs)

    @property
    def targets(self) -> dict[str, Column]:
        """Labels and every other column of the table, one value a row."""
        return dict(self._contents.targets)

    @property
    def failed(self) -> tuple[Failure, ...]:
        """Inputs that have no row, with the reason."""
        return self._contents.failed

    @property
    def inputs(self) -> NDArray[np.void]:
        """What every row was made of: ``digest``, ``size``, ``mtime_ns``."""
        return self._contents.inputs

    @property
    def weights(self) -> dict[str, str]:
        """Where the weights of a backbone came from; absent where its name says it."""
        return dict(self._contents.weights)

    @property
    def created(self) -> str:
        """Time of writing, ISO 8601, UTC."""
        return self._contents.created

    @property
    def library_versions(self) -> dict[str, str]:
        """Versions that wrote the cache: recorded, never compared."""
        return dict(self._contents.library_versions)

    @property
    def complete(self) -> bool:
        """Whether no unfinished embedding lies beside the cache."""
        return self.path is None or PartFolder(self.path).count() == 0

    def matrix(
        self, layers: str | Sequence[str] | None = None, rows: Rows = None
    ) -> tuple[NDArray[np.float32], dict[str, slice]]:
        """Read layers side by side, checking the blocks that are touched for damage.

        Parameters
        ----------
        layers : str or sequence of str, optional
            Full names, or taps alone where they are unambiguous; all when not given.
        rows : int or bool array, or slice, optional
            Which rows, in which order; all when not given.

        Returns
        -------
        X : ndarray of float32, shape (rows, sum of widths)
            C-contiguous, a copy.
        layer_slices : dict of str to slice
            The columns of every layer, by its full name, in the order asked for.

        Raises
        ------
        UnknownNameError
            When a layer is not in the cache.
        OptionError
            When a tap is ambiguous or a layer is named twice.
        CacheDamagedError
            When a block that is read is damaged, naming layer and rows.
        """
        slices = self._slices(layers)
        chosen = self._chosen(rows)
        shape = (len(self._positions(chosen)), sum(self.layers[layer] for layer in slices))
        X = np.empty(shape, dtype=np.float32)
        for layer, columns in slices.items():
            X[:, columns] = self._read(layer, chosen)
        return X, slices

    def chunks(
        self, layers: str | Sequence[str] | None = None, size: int = BLOCK_ROWS
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Read `matrix` in pieces of ``size`` rows, for data larger than memory.

        Yields
        ------
        rows : slice
            Which rows the piece holds.
        X : ndarray of float32, shape (at most size, sum of widths)
        """
        for start in range(0, len(self.ids), size):
            rows = slice(start, min(start + size, len(self.ids)))
            yield rows, self.matrix(layers, rows)[0]
            self.release()

    def values(self, layer: str, rows: Rows = None) -> NDArray[Any]:
        """Read one layer in the type it is stored in, checked as `matrix` checks.

        Returns
        -------
        ndarray of float16 or float32, shape (rows, width)
            A copy.
        """
        return np.array(self._read(self._full_name(layer), self._chosen(rows)))

    def damaged(self) -> dict[str, list[range]]:
        """Check every block, and give the row ranges of the damaged ones by layer."""
        every = {layer: np.arange(len(guard.checksums)) for layer, guard in self._guards.items()}
        found = {layer: self._guards[layer].damaged(blocks) for layer, blocks in every.items()}
        return {layer: ranges for layer, ranges in found.items() if ranges}

    def append(
        self,
        layers: Mapping[str, Any],
        ids: Sequence[str],
        targets: Mapping[str, Column | Iterable[Any]] | None = None,
    ) -> None:
        """Add vectors that were computed elsewhere: new rows, or new layers of all rows.

        Parameters
        ----------
        layers : mapping of str to array-like, shape (m, width)
            For new rows all layers of the store. For new layers, on top of the others.
        ids : sequence of str
            m new names for new rows; for new layers the ids of the store in their order.
        targets : mapping of str to Column or sequence, optional
            Of the given rows. Columns that are not given are missing in new rows.

        Raises
        ------
        CacheError
            When it is neither, or lengths differ, or a value is not finite.
        """
        if self.path is None:
            contents, values = grown(self._contents, self._read, layers, ids, targets or {})
            every = slice(0, len(contents.ids))
            self._become(
                type(self)(contents, {layer: values(layer, every) for layer in contents.layers})
            )
            return
        with CacheLock(self.path, wait=True), type(self).open(self.path) as now:
            contents, values = grown(now._contents, now._read, layers, ids, targets or {})
            write_cache(self.path, contents, values)
        fresh = type(self).open(self.path)
        self.close()
        self._become(fresh)

    def _become(self, other: Self) -> None:
        self.__dict__.update(vars(other))

    def release(self) -> None:
        """Let go of the memory that reading the file has mapped; it is read again when asked."""
        if self._content is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._content.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Close the file. What `matrix` gave stays valid: it was a copy."""
        self._arrays, self._guards, self._closed = {}, {}, True
        with suppress(BufferError):  # a view in a traceback: the mapping ends with it
            if self._content is not None:
                self._content.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        place = self.path or "in memory"
        return f"<EmbeddingStore {place}: {len(self)} rows, {len(self.layers)} layers>"

    def _slices(self, layers: str | Sequence[str] | None) -> dict[str, slice]:
        named = [layers] if isinstance(layers, str) else layers
        names = list(self.layers) if named is None else [self._full_name(name) for name in named]
        if len(set(names)) < len(names):
            raise OptionError(f"a layer is named twice: {', '.join(names)}. Name each once.")
        slices, start = {}, 0
        for name in names:
            slices[name] = slice(start, start + self.layers[name])
            start += self.layers[name]
        return slices

    def _full_name(self, name: str) -> str:
        if name in self._contents.layers:
            return name
        matches = [full for full in self._contents.layers if full.rpartition("/")[2] == name]
        if not matches:
            raise UnknownNameError("layer", name, list(self._contents.layers))
        if len(matches) > 1:
            raise OptionError(
                f"the layer {name!r} stands in {len(matches)} backbones. "
                f"Name it in full: {' or '.join(matches)}."
            )
        return matches[0]

    def _chosen(self, rows: Rows) -> slice | NDArray[np.intp]:
        """Give a slice, or positions in place of a mask, negative numbers or an empty list."""
        if rows is None or isinstance(rows, slice):
            return slice(None) if rows is None else rows
        index = np.asarray(rows)
        return self._positions(index if index.size else index.astype(np.intp))

    def _positions(self, rows: slice | NDArray[Any]) -> NDArray[np.intp]:
        return np.arange(len(self.ids))[rows]

    def _read(self, layer: str, rows: slice | NDArray[np.intp]) -> NDArray[Any]:
        """Check the blocks that hold the rows, and give these (a view for a slice)."""
        if self._closed:
            raise CacheError(f"the store of {self.path} is closed. Open it again.")
        if layer in self._guards:
            blocks = np.unique(self._positions(rows) // BLOCK_ROWS)
            if ranges := self._guards[layer].damaged(blocks):
                raise _damaged_rows(self.path, layer, ranges)
        return self._arrays[layer][rows]


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        parts = PartFolder(path).count()
        if parts:
            raise CacheError(
                f"{path} is not finished: {parts} parts of it lie in {path}.parts. "
                "Run the same embed command again; it continues there."
            ) from None
        raise CacheError(f"there is no cache {path}. Make it with: pipeline embed") from None
    except OSError as error:
        raise CacheError(f"cannot open {path}: {error.strerror}. Give a cache file.") from None


def _view(content: mmap.mmap, extent: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    offset, size = extent
    if not size:
        return np.empty(0, dtype)
    if offset + size > len(content):
        raise CacheDamagedError("a layer claims to reach beyond the end of the file.")
    return np.frombuffer(content, dtype, count=size // dtype.itemsize, offset=offset)


def _damaged_rows(path: Path | None, layer: str, ranges: Sequence[range]) -> CacheDamagedError:
    shown = ", ".join(f"{rows.start} to {rows.stop - 1}" for rows in ranges[:5])
    more = f" and {len(ranges) - 5} more blocks" if len(ranges) > 5 else ""
    return CacheDamagedError(
        f"{path} is damaged in layer {layer}, rows {shown}{more}: the bytes are not those that "
        "were written. Put back a copy of the file, or embed these rows again."
    )
