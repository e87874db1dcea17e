"""scikit-learn estimators as bytes that depend on nothing but the estimator.

skops writes the clock and memory addresses into its zip, and trees leave unused bytes as
they find them; here dates are fixed, object ids renumbered and unused bytes zero. Loading
runs no code: only types of an explicit list are built.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from importlib import import_module
from typing import Any

import numpy as np

from pipeline.errors import ModelFileError

__all__ = ["dump_estimator", "load_estimator"]

_SCHEMA = "schema.json"
_DATE = (1980, 1, 1, 0, 0, 0)
_PLAIN = {"JsonNode", "TypeNode"}


def dump_estimator(estimator: Any) -> bytes:
    """Write a fitted estimator as a skops file of fixed bytes."""
    with zipfile.ZipFile(io.BytesIO(_skops_io().dumps(estimator))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    renumbering = _Renumbering()
    schema = renumbering.apply(json.loads(members.pop(_SCHEMA)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        renamed = {renumbering.file(name): _settled(name, members[name]) for name in members}
        for name in sorted(renamed):
            archive.writestr(zipfile.ZipInfo(name, _DATE), renamed[name])
        archive.writestr(zipfile.ZipInfo(_SCHEMA, _DATE), json.dumps(schema))
    return buffer.getvalue()


def load_estimator(content: bytes, trusted: tuple[str, ...]) -> Any:
    """Build an estimator from types of the list and nothing else.

    Raises
    ------
    ModelFileError
        When the file names a type outside the list, or is no skops file.
    """
    skops_io = _skops_io()
    try:
        _refuse_bombs(content)
        unknown = sorted(set(skops_io.get_untrusted_types(data=content)) - set(trusted))
        if unknown:
            raise ModelFileError(
                f"the model file holds types that are not trusted: {', '.join(unknown)}. "
                "If the file is yours, load it with trusted=[...] naming them."
            )
        return skops_io.loads(content, trusted=list(trusted))
    except ModelFileError:
        raise
    except Exception as error:  # skops raises whatever its node types raise
        raise ModelFileError(f"the model file holds a step that cannot be read: {error}") from error


def _refuse_bombs(content: bytes) -> None:
    """Refuse what unpacks to more than it is: we store every member once, and as it is."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > len(content):
        raise ModelFileError(
            "the model file holds a step that unpacks to more than it is. Train it again."
        )


def _skops_io() -> Any:
    """Import ``skops.io`` without torch.

    It walks through all of scikit-learn, and so through its adapter for torch, which takes
    seconds that a program without networks has no use for.
    """
    unwanted = "torch" not in sys.modules
    if unwanted:
        sys.modules["torch"] = None  # type: ignore[assignment]  # "cannot be imported"
    try:
        return import_module("skops.io")
    finally:
        if unwanted:
            del sys.modules["torch"]


def _settled(name: str, content: bytes) -> bytes:
    """Zero the bytes between the fields of a structured array, which nobody has written."""
    if not name.endswith(".npy"):
        return content
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.names is None:
        return content
    clean = np.zeros(array.shape, array.dtype)  # zeros_like would zero the fields alone
    for field in array.dtype.names:
        clean[field] = array[field]
    buffer = io.BytesIO()
    np.save(buffer, clean, allow_pickle=False)
    return buffer.getvalue()


class _Renumbering:
    """Counts objects in the order in which the schema names them.

    Numbers and strings share addresses by the interpreter's whim, so each gets a number of
    its own; arrays and estimators keep theirs, so that shared ones stay shared.
    """

    def __init__(self) -> None:
        self._ids: dict[Any, int] = {}
        self._files: dict[str, str] = {}
        self._next = 0

    def apply(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.apply(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = dict(node)
        if "__id__" in node:
            node["__id__"] = self._number(node["__id__"], node.get("__loader__") in _PLAIN)
        if isinstance(node.get("file"), str):
            suffix = node["file"].rpartition(".")[2]
            renamed = f"{node['__id__']}.{suffix}"
            node["file"] = self._files.setdefault(node["file"], renamed)
        return {key: self.apply(value) for key, value in node.items()}

    def file(self, name: str) -> str:
        return self._files[name]

    def _number(self, address: int, plain: bool) -> int:
        if not plain and address in self._ids:
            return self._ids[address]
        self._next += 1
        if not plain:
            self._ids[address] = self._next
        return self._next
