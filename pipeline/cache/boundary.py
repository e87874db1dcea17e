"""Boundary: the activations that enter the first trained block, for every view of every row.

The blocks below it stay as they are while the top ones are trained, so what they give is
computed once a view and read back, batch by batch and in any order, in every epoch. The
file lies beside the model that is made and is removed with the last epoch.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.boundary_contents import BoundaryContents
from pipeline.cache.disk import failures_of_writing
from pipeline.cache.lock import CacheLock
from pipeline.cache.seal import Extent, check_seal, seal, user_block_size
from pipeline.digest import DIGEST_SIZE
from pipeline.durable import remove_temporaries, write_durably
from pipeline.errors import CacheDamagedError, CacheError
from pipeline.memory import shown_bytes

__all__ = ["BoundaryCache", "BoundaryWriter"]

_FLOAT16 = np.dtype("<f2")
_WAY_OUT = "Take fewer views or another place, or train without the boundary cache."


class BoundaryCache:
    """An open boundary cache; `write` makes one, `open` opens it.

    Examples
    --------
    >>> import tempfile
    >>> digests, maps = np.zeros((3, 16), np.uint8), np.arange(12.0).reshape(3, 2, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.boundary.h5")
    ...     with BoundaryCache.write(
    ...         path, "key", ["a", "b", "c"], digests, "blocks.5", (2, 2), {"net/low": 1}, views=1
    ...     ) as writer:
    ...         writer.put(0, [0, 1, 2], maps, {"net/low": maps[:, 0, :1]})
    ...     cache = BoundaryCache.open(path, "key")
    ...     activations, layers = cache.batch(0, [2, 0])
    ...     cache.delete()
    >>> activations.tolist(), layers["net/low"].tolist()
    ([[[8.0, 9.0], [10.0, 11.0]], [[0.0, 1.0], [2.0, 3.0]]], [[8.0], [0.0]])
    """

    def __init__(
        self, path: Path, contents: BoundaryContents, extents: Mapping[str, Extent], file: BinaryIO
    ) -> None:
        self.path, self.contents = path, contents
        self._extents, self._file = extents, file

    @classmethod
    @contextmanager
    def write(
        cls,
        path: str | os.PathLike[str],
        key: str,
        ids: Sequence[str],
        digests: NDArray[np.uint8],
        block: str,
        shape: Sequence[int],
        layers: Mapping[str, int],
        views: int,
    ) -> Iterator[BoundaryWriter]:
        """Write a cache; when the block ends it stands whole, and not at all if that raises.

        Parameters
        ----------
        path : str or Path
            A file that stands there is replaced by one rename.
        key, ids, digests, block, shape, layers, views
            As for `BoundaryContents`.

        Yields
        ------
        BoundaryWriter
            Takes the values, in any order.

        Raises
        ------
        CacheError
            When the disk has no room, at once, or the folder cannot be written.
        CacheBusyError
            When another process is writing it.
        ValueError
            When the block ends before every row of every view was put.
        """
        from pipeline.cache.boundary_layout import create_boundary  # loads h5py

        path, shape, layers = Path(path), tuple(shape), dict(layers)
        kept = np.asarray(digests, dtype=np.uint8).reshape(len(ids), DIGEST_SIZE)
        contents = BoundaryContents(key, tuple(ids), kept, block, shape, layers, views)
        with CacheLock(path), ExitStack() as stack:
            with failures_of_writing(path, _WAY_OUT):
                _refuse_full_disk(path, cls.size(len(ids), shape, layers, views))
                remove_temporaries(path)
                temporary = stack.enter_context(write_durably(path))
                with temporary.open("wb") as file:
                    extents = create_boundary(file, contents)
                # Unbuffered: closing it writes nothing, so nothing fails that has not failed.
                raw = stack.enter_context(temporary.open("r+b", buffering=0))
            writer = BoundaryWriter(path, contents, extents, raw)
            yield writer  # an error of the block is no failure of writing
            writer.refuse_gaps()
            with failures_of_writing(path, _WAY_OUT):
                seal(temporary, extents.values(), user_block_size(len(extents)))
                stack.close()  # forces it to the disk and renames it

    @classmethod
    def open(cls, path: str | os.PathLike[str], key: str) -> Self | None:
        """Open a cache made of exactly this; None where there is none, or it is damaged."""
        from pipeline.cache.boundary_layout import read_boundary  # loads h5py

        try:
            file = Path(path).open("rb")  # noqa: SIM115 - the cache closes it
        except OSError:
            return None
        try:
            sealed = check_seal(file).extents
            contents, extents = read_boundary(file)
        except (CacheError, OSError):
            file.close()
            return None
        if contents.key != key or sealed != tuple(sorted(e for e in extents.values() if e[1])):
            file.close()
            return None
        return cls(Path(path), contents, extents, file)

    @staticmethod
    def size(n: int, shape: Sequence[int], layers: Mapping[str, int], views: int) -> int:
        """Bytes of the values of n rows; names and structure add some 100 bytes a row.

        Examples
        --------
        >>> BoundaryCache.size(6000, (40, 14, 14), {"net/low": 60}, views=6)
        568800000
        """
        return views * n * (math.prod(shape) + sum(layers.values())) * _FLOAT16.itemsize

    def batch(
        self, view: int, rows: Sequence[int] | NDArray[np.integer]
    ) -> tuple[NDArray[np.float16], dict[str, NDArray[np.float16]]]:
        """Read rows of a view in the order asked for; several threads may.

        Returns
        -------
        activations : float16 array of shape (rows, *shape)
        layers : dict of str to float16 array of shape (rows, width)

        Raises
        ------
        IndexError
            When there is no such view or row.
        CacheDamagedError
            When the file was cut short after it was opened.
        """
        chosen = self.contents.rows(view, rows)
        datasets = self.contents.datasets(view).items()
        activations, *layers = [self._read(name, shape, chosen) for name, shape in datasets]
        return activations, dict(zip(self.contents.layers, layers, strict=True))

    def close(self) -> None:
        """Close the file; what `batch` gave stays."""
        self._file.close()

    def delete(self) -> None:
        """Close the file and remove it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.contents.ids)

    def _read(
        self, name: str, shape: tuple[int, ...], rows: NDArray[np.intp]
    ) -> NDArray[np.float16]:
        """Read rows by one call each.

        From the system's memory that is as fast as a mapping of the file (64 rows of 14 KB
        in 0.4 ms, of 150 KB in 1.6), from the disk ten times as fast.
        """
        values = np.empty((len(rows), *shape), _FLOAT16)
        start, size = self._extents[name][0], math.prod(shape) * _FLOAT16.itemsize
        handle, target = self._file.fileno(), values.reshape(-1).view(np.uint8).data
        for place, row in enumerate(rows.tolist()):
            done = 0
            while done < size:
                piece = target[place * size + done : (place + 1) * size]
                count = os.preadv(handle, [piece], start + row * size + done)
                if not count:
                    raise CacheDamagedError(
                        f"{self.path} was cut short while it was read. Remove it, and start again."
                    )
                done += count
        return values


class BoundaryWriter:
    """Takes the values of a boundary cache; see `BoundaryCache.write`."""

    def __init__(
        self, path: Path, contents: BoundaryContents, extents: Mapping[str, Extent], file: FileIO
    ) -> None:
        self._path, self._contents, self._extents, self._file = path, contents, extents, file
        self._missing = np.ones((contents.views, len(contents.ids)), dtype=bool)

    def put(
        self,
        view: int,
        rows: Sequence[int] | NDArray[np.integer],
        activations: NDArray[Any],
        layers: Mapping[str, NDArray[Any]],
    ) -> None:
        """Write rows of a view.

        Parameters
        ----------
        view : int
        rows : sequence of int
            In any order.
        activations : array of shape (rows, *shape) or (rows, values)
            What enters the block.
        layers : mapping of str to array of shape (rows, width)
            The layers below it; others that are given are left out.

        Raises
        ------
        CacheError
            When a value is not finite or too large for float16, or the disk is full.
        """
        chosen = self._contents.rows(view, rows)
        given = [activations, *(layers[name] for name in self._contents.layers)]
        datasets = self._contents.datasets(view).items()
        for (name, shape), values in zip(datasets, given, strict=True):
            self._write(name, chosen, self._stored(name, shape, chosen, np.asarray(values)))
        self._missing[view, chosen] = False

    def refuse_gaps(self) -> None:
        """Make sure that every row of every view was put."""
        for view, missing in enumerate(self._missing):
            if missing.any():
                raise ValueError(
                    f"{missing.sum()} of {missing.size} rows of view {view} were not put. Put "
                    "every row of every view before the block ends."
                )

    def _stored(
        self, name: str, shape: tuple[int, ...], rows: NDArray[np.intp], values: NDArray[Any]
    ) -> NDArray[np.float16]:
        if values.size != len(rows) * math.prod(shape) or len(values) != len(rows):
            raise ValueError(f"{name} is of shape {values.shape}, not {(len(rows), *shape)}.")
        flat = values.reshape(len(rows), math.prod(shape))
        with np.errstate(over="ignore"):  # it is found below
            stored = flat.astype(_FLOAT16, order="C")
        sound = np.isfinite(stored)
        if not sound.all():
            row, column = np.argwhere(~sound)[0]
            raise CacheError(
                f"{name} of {self._contents.ids[rows[row]]!r} holds {flat[row, column]:.6g}, but "
                f"the boundary cache keeps finite numbers up to {np.finfo(_FLOAT16).max:.6g}. "
                "Train without the boundary cache."
            )
        return stored

    def _write(self, name: str, rows: NDArray[np.intp], stored: NDArray[np.float16]) -> None:
        """Write values, neighbours in the file by one call."""
        order = np.argsort(rows, kind="stable")
        ends = np.flatnonzero(np.diff(rows[order]) != 1) + 1
        with failures_of_writing(self._path, _WAY_OUT):
            for run in np.split(order, ends) if len(rows) else []:
                start = int(rows[run[0]]) * stored.shape[1] * stored.itemsize
                self._file.seek(self._extents[name][0] + start)
                left = stored[run].reshape(-1).view(np.uint8).data
                while left:
                    left = left[self._file.write(left) :]


def _refuse_full_disk(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.absolute().parent).free
    if needed > free:
        raise CacheError(
            f"{path} needs {shown_bytes(needed)} while the top blocks are trained, but only "
            f"{shown_bytes(free)} are free there. {_WAY_OUT}"
        )
