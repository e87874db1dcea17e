"""Prepared graphs: networks converted once, kept in the user's cache folder.

Converting takes seconds and needs the network; a kept graph is read in a fraction of a
second, without timm and torchvision. A graph is found by everything that shapes it, and one
that is damaged is made anew.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.backbones.device import import_openvino
from pipeline.digest import digest_bytes, digest_json
from pipeline.spec import Preprocessing

__all__ = ["PreparedGraph", "graph_folder", "read_graph", "written_graph"]

_log = logging.getLogger(__name__)

GRAPH_VERSION = 1
"""Raised when `EmbeddingGraph` computes something else from the same network."""

_FILES = ("graph.xml", "graph.bin")
_FACTS = "graph.json"


def graph_folder() -> Path:
    """Folder of the prepared graphs: ``PIPELINE_CACHE_DIR``, else the user's cache folder."""
    given = os.environ.get("PIPELINE_CACHE_DIR")
    if given:
        return Path(given) / "graphs"
    from platformdirs import user_cache_path

    return user_cache_path("transfer-pipeline", appauthor=False) / "graphs"


def written_graph(model: Any) -> dict[str, bytes]:
    """Write a graph: the content of each of its files by name."""
    with tempfile.TemporaryDirectory() as folder:
        import_openvino().save_model(  # type: ignore[union-attr]
            model, Path(folder) / _FILES[0], compress_to_fp16=False
        )
        return {name: (Path(folder) / name).read_bytes() for name in _FILES}


def read_graph(contents: Mapping[str, bytes]) -> Any:
    """Read a graph from what `written_graph` gave."""
    openvino: Any = import_openvino()
    return openvino.Core().read_model(*(contents[name] for name in _FILES))


@dataclass(frozen=True)
class PreparedGraph:
    """The place of one prepared graph: everything that shapes it.

    Parameters
    ----------
    weights_digest : str
    preprocess : Preprocessing
        Size, mean and deviation are inside the graph.
    pooling : str
    layers : tuple of str
        Taps, in the order in which they are packed.
    precision : str
        The check against torch was made in it.
    """

    weights_digest: str
    preprocess: Preprocessing
    pooling: str
    layers: tuple[str, ...]
    precision: str

    @property
    def path(self) -> Path:
        """Its folder; other versions of OpenVINO, of the networks or of ours have others."""
        openvino = import_openvino()
        shaped_by = asdict(self) | {
            "engine": None if openvino is None else openvino.__version__,
            "networks": [version(name) for name in ("timm", "torchvision")],
            "graph_version": GRAPH_VERSION,
        }
        return graph_folder() / digest_json(shaped_by).hex()

    def read(self) -> Any | None:
        """Give the kept graph, or None when there is none that can be trusted."""
        path = self.path
        if import_openvino() is None or not path.is_dir():
            return None
        try:
            facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
            contents = {name: (path / name).read_bytes() for name in _FILES}
            if facts["files"] == _digests(contents):
                return read_graph(contents)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            pass
        _log.warning("the prepared graph %s is damaged: it is made anew", path)
        shutil.rmtree(path, ignore_errors=True)
        return None

    def keep(self, contents: Mapping[str, bytes], widths: Sequence[int]) -> None:
        """Keep a graph; where the folder cannot be written, say so and go on."""
        path = self.path
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            temporary.mkdir(parents=True)
            for name, content in contents.items():
                (temporary / name).write_bytes(content)
            facts = {
                "files": _digests(contents),
                "layers": dict(zip(self.layers, widths, strict=True)),
                "weights_digest": self.weights_digest,
                "precision": self.precision,
            }
            (temporary / _FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")
            temporary.rename(path)
        except OSError as error:
            if not path.is_dir():  # another process may have been faster
                _log.warning("the prepared graph cannot be kept in %s: %s", path.parent, error)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: digest_bytes(content).hex() for name, content in contents.items()}
