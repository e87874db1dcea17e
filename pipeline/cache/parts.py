"""Parts: what a run has finished, beside the cache that is not written yet.

While embedding runs there is no half-written HDF5. Whole planned batches stand as small
files in ``CACHE.h5.parts/``, each written durably, and a merge makes the cache of them. A
run that was killed finds them again; a cluster's workers write the same files into a shared
folder.

A part file is a magic line, the header's length in bytes (8 bytes, little endian), the
header as JSON, the vectors row by row with all layers packed, and 16 bytes of blake2b over
everything before them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.contents import INPUT, check_specs, dtype_of
from pipeline.cache.disk import write_whole
from pipeline.digest import DIGEST_SIZE, digest_json
from pipeline.durable import make_folder_durably
from pipeline.errors import CacheDamagedError, CacheError, InputError
from pipeline.spec import EmbeddingSpec

__all__ = ["FoundParts", "Part", "PartFolder"]

_log = logging.getLogger(__name__)
_MAGIC = b"transfer-pipeline part 1\n"
_PIECE = 1 << 20


@dataclass(frozen=True, eq=False)
class Part:
    """Finished rows of consecutive planned ids.

    Parameters
    ----------
    first_row : int
        Place of the first id in the plan.
    ids : tuple of str
        All ids of the batch, whatever became of them.
    inputs : ndarray of `INPUT`, shape (n,)
        Digest, size and time of last change of every input.
    failed : dict of int to str
        Reason of every row of this part that has no vector.
    copied : tuple of int
        Rows of this part whose content the finished cache holds: their vectors are there.
    layers : dict of str to int
        Width of every layer, bottom to top.
    specs : dict of str to EmbeddingSpec
        One a backbone.
    settings : dict
        What was resolved (batch size, engine, ...) and a resume must take from here.
    path : Path
        The file.
    offset : int
        Where its vectors begin, in bytes.
    """

    first_row: int
    ids: tuple[str, ...]
    inputs: NDArray[np.void]
    failed: dict[int, str]
    copied: tuple[int, ...]
    layers: dict[str, int]
    specs: dict[str, EmbeddingSpec]
    settings: dict[str, Any]
    path: Path
    offset: int

    def embedded(self) -> list[int]:
        """List the rows of this part that hold a vector, in order."""
        without = self.failed.keys() | set(self.copied)
        return [row for row in range(len(self.ids)) if row not in without]

    def vectors(self) -> NDArray[np.void]:
        """Map the vectors: one record for each of `embedded`, one field a layer."""
        count, dtype = len(self.embedded()), _packed_type(self.layers, self.specs)
        if not count:
            return np.empty(0, dtype)
        return np.memmap(self.path, dtype, mode="r", offset=self.offset, shape=(count,))


class FoundParts(NamedTuple):
    """What lies in a folder of parts.

    Parameters
    ----------
    sound : list of Part
        In the order of writing: where two hold an id, the newer one stands later.
    dropped : int
        Count of damaged ones, which were removed: their rows must be embedded again.
    """

    sound: list[Part]
    dropped: int


class PartFolder:
    """The parts that belong to a cache. Whoever writes here holds the cache's lock.

    Parameters
    ----------
    cache : str or Path
        The cache; the parts lie in ``<cache>.parts/``.
    """

    def __init__(self, cache: str | os.PathLike[str]) -> None:
        self.path = Path(f"{os.fspath(cache)}.parts")

    def count(self) -> int:
        """Count the parts by their names, without reading them."""
        return len(self._files())

    def write(
        self,
        arrays: Mapping[str, NDArray[Any]],
        *,
        first_row: int,
        ids: Sequence[str],
        inputs: NDArray[np.void],
        specs: Mapping[str, EmbeddingSpec],
        failed: Mapping[str, str] | None = None,
        copied: Iterable[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> Part:
        """Write one part durably; the same content goes to the same name.

        Parameters
        ----------
        arrays : mapping of str to ndarray, shape (n, width)
            The layers bottom to top, in their store dtype. Every id has its row here; the
            rows of failed and copied ones are not looked at.
        first_row : int
            Place of the first id in the plan.
        ids : sequence of str
            n consecutive ids of the plan.
        inputs : ndarray of `INPUT`, shape (n,)
            What the rows were made of.
        specs : mapping of str to EmbeddingSpec
            One a backbone.
        failed : mapping of str to str, optional
            Reason by id.
        copied : iterable of str
            Ids whose content the finished cache holds.
        settings : mapping, optional
            JSON values that a resume must take from here.

        Returns
        -------
        Part
            As it would be read back.

        Raises
        ------
        CacheError
            When the disk is full or the folder cannot be written.
        ValueError
            When an array is not of n rows in the store dtype.
        """
        place = {id: row for row, id in enumerate(ids)}
        reasons = {place[id]: reason for id, reason in (failed or {}).items()}
        layers = {layer: int(array.shape[1]) for layer, array in arrays.items()}
        header = {
            "first_row": first_row,
            "ids": list(ids),
            "digests": inputs["digest"].tobytes().hex(),
            "sizes": inputs["size"].tolist(),
            "mtimes_ns": inputs["mtime_ns"].tolist(),
            "failed": [[row, reasons[row]] for row in sorted(reasons)],
            "copied": sorted(place[id] for id in copied),
            "layers": list(layers.items()),
            "specs": {name: spec.to_json() for name, spec in specs.items()},
            "settings": dict(settings or {}),
        }
        text = json.dumps(header).encode()
        path = self.path / f"{first_row:09d}-{_content_key(header)}.part"
        part = _parsed(path, text)
        rows = np.empty(len(part.embedded()), _packed_type(layers, specs))
        for layer, array in arrays.items():
            if len(array) != len(ids) or array.dtype != rows.dtype[layer].base:
                raise ValueError(
                    f"layer {layer} is {array.dtype} of shape {array.shape}, not "
                    f"{rows.dtype[layer].base} of {len(ids)} rows."
                )
            rows[layer] = array[part.embedded()]
        content = _MAGIC + len(text).to_bytes(8, "little") + text + rows.tobytes()
        self._write(path, content)
        return part

    def read(self, expect: Iterable[EmbeddingSpec] | None = None) -> FoundParts:
        """Read what a killed run has left, and remove what it left half-written.

        Parameters
        ----------
        expect : iterable of EmbeddingSpec, optional
            What this run embeds with: parts of another spec are an error, never reused.

        Raises
        ------
        CacheMismatchError
            When a part was made by another spec, naming the fields that differ.
        """
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        sound, dropped = [], 0
        for path in self._files():
            try:
                sound.append(_read(path))
            except CacheDamagedError:
                path.unlink(missing_ok=True)
                dropped += 1
        if dropped:
            _log.warning(
                "%s damaged parts in %s: their rows are embedded again", dropped, self.path
            )
        if expect is not None:
            self._check(sound, list(expect))
        return FoundParts(sorted(sound, key=_written), dropped)

    def drop(self, part: Part) -> None:
        """Remove one part, for instance because its inputs have changed since."""
        part.path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder with all parts."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("[0-9]*.part"))

    def _write(self, path: Path, content: bytes) -> None:
        try:
            make_folder_durably(self.path)
        except OSError as error:
            raise CacheError(f"cannot make the folder {self.path}: {error.strerror}.") from error
        with write_whole(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.write(hashlib.blake2b(content, digest_size=DIGEST_SIZE).digest())

    def _check(self, parts: Iterable[Part], expected: Sequence[EmbeddingSpec]) -> None:
        for part in parts:
            held = list(part.specs.values())
            wanted = [spec for spec in expected if spec.backbone in part.specs]
            check_specs(str(self.path), part.specs, wanted)
            # A backbone that nobody asked for is a difference, too.
            check_specs("this run", {spec.backbone: spec for spec in expected}, held)


def _read(path: Path) -> Part:
    """Read a part whose every byte has been checked."""
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - DIGEST_SIZE
        while left > 0 and (piece := file.read(min(_PIECE, left))):
            digest.update(piece)
            left -= len(piece)
        if file.read() != digest.digest():
            raise CacheDamagedError(f"{path} is damaged.")
        file.seek(0)
        if file.read(len(_MAGIC)) != _MAGIC:
            raise CacheDamagedError(f"{path} is no part of ours.")
        text = file.read(int.from_bytes(file.read(8), "little"))
    try:
        return _parsed(path, text)
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise CacheDamagedError(f"{path} has a header that cannot be read: {error}.") from None


def _parsed(path: Path, text: bytes) -> Part:
    header = json.loads(text)
    inputs = np.zeros(len(header["ids"]), INPUT)
    digests = np.frombuffer(bytes.fromhex(header["digests"]), np.uint8)
    inputs["digest"] = digests.reshape(-1, DIGEST_SIZE)
    inputs["size"], inputs["mtime_ns"] = header["sizes"], header["mtimes_ns"]
    return Part(
        first_row=header["first_row"],
        ids=tuple(header["ids"]),
        inputs=inputs,
        failed=dict(header["failed"]),
        copied=tuple(header["copied"]),
        layers=dict(header["layers"]),
        specs={name: EmbeddingSpec.from_json(spec) for name, spec in header["specs"].items()},
        settings=header["settings"],
        path=path,
        offset=len(_MAGIC) + 8 + len(text),
    )


def _written(part: Part) -> tuple[int, int]:
    return part.path.stat().st_mtime_ns, part.first_row


def _packed_type(layers: Mapping[str, int], specs: Mapping[str, EmbeddingSpec]) -> np.dtype[Any]:
    return np.dtype([(layer, dtype_of(layer, specs), (width,)) for layer, width in layers.items()])


def _content_key(header: Mapping[str, Any]) -> str:
    """Name what a part holds by what it was made of, so that a second attempt replaces it."""
    return digest_json({**header, "mtimes_ns": None, "settings": None}).hex()
