"""Prepared graphs: networks converted once, kept in the user's cache folder.

Converting takes seconds and needs the network; a kept graph is read in a fraction of a
second, without timm and torchvision. A graph is found by everything that shapes it, and one
that is damaged is made anew.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.backbones.device import import_openvino
from pipeline.digest import digest_bytes, digest_json
from pipeline.errors import BackboneError, reason_of
from pipeline.spec import Preprocessing

__all__ = [
    "PreparedGraph",
    "forget_graphs",
    "graph_folder",
    "network_versions",
    "read_graph",
    "written_graph",
]

_log = logging.getLogger(__name__)

GRAPH_VERSION = 2
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


def network_versions() -> dict[str, str]:
    """Versions of the libraries that networks come from."""
    return {name: version(name) for name in ("timm", "torchvision")}


@cache
def processor_features() -> str:
    """List what the processor can: the verdict on a graph holds for it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    return " ".join(sorted(next(lines, platform.machine()).split()))


def written_graph(model: Any) -> dict[str, bytes]:
    """Write a graph: the content of each of its files by name.

    Raises
    ------
    BackboneError
        When the temporary folder has no room.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            import_openvino().save_model(  # type: ignore[union-attr]
                model, Path(folder) / _FILES[0], compress_to_fp16=False
            )
            return {name: (Path(folder) / name).read_bytes() for name in _FILES}
        except (OSError, RuntimeError) as error:
            raise BackboneError(
                f"the converted network cannot be written to {folder}: {reason_of(error)}. Make "
                "room there, or name another temporary folder: TMPDIR."
            ) from error


def read_graph(contents: Mapping[str, bytes]) -> Any:
    """Read a graph from what `written_graph` gave."""
    openvino: Any = import_openvino()
    return openvino.Core().read_model(*(contents[name] for name in _FILES))


def forget_graphs(weights_digest: str) -> None:
    """Remove the kept graphs of a network that nobody will use again."""
    for facts in graph_folder().glob(f"*/{_FACTS}"):
        with suppress(OSError):
            if weights_digest.encode() in facts.read_bytes():
                shutil.rmtree(facts.parent, ignore_errors=True)


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
    def shaped_by(self) -> dict[str, Any]:
        """Everything that shapes it, as JSON: versions and the processor too."""
        openvino = import_openvino()
        return asdict(self) | {
            "engine": None if openvino is None else openvino.__version__,
            "networks": network_versions(),
            "processor": processor_features(),
            "graph_version": GRAPH_VERSION,
        }

    @property
    def path(self) -> Path:
        """Its folder; another version of OpenVINO, say, has another."""
        return graph_folder() / digest_json(self.shaped_by).hex()

    def read(self) -> Any | None:
        """Give the kept graph, or None when there is none that can be trusted."""
        facts = self._facts()
        if facts is None or "refused" in facts:
            return None
        try:
            contents = {name: (self.path / name).read_bytes() for name in _FILES}
            if facts["files"] == _digests(contents):
                return read_graph(contents)
        except (OSError, KeyError, RuntimeError):
            pass
        self._drop()
        return None

    def refusal(self) -> str | None:
        """Say why no graph was made of this network; None where nothing is known of it."""
        facts = self._facts()
        return None if facts is None else facts.get("refused")

    def keep(self, contents: Mapping[str, bytes], agreements: Mapping[str, float]) -> None:
        """Keep a graph, and the agreement of each layer with eager torch in float32."""
        self._write(contents, {"files": _digests(contents), "agreement": dict(agreements)})

    def refuse(self, reason: str) -> None:
        """Keep why there is no graph, so that the next run need not try again."""
        self._write({}, {"refused": reason})

    def _facts(self) -> dict[str, Any] | None:
        if import_openvino() is None or not self.path.is_dir():
            return None
        try:
            facts: dict[str, Any] = json.loads((self.path / _FACTS).read_bytes())
            own = json.loads(json.dumps(self.shaped_by))
            if facts["shaped_by"] == own and ("files" in facts) != ("refused" in facts):
                return facts
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        self._drop()
        return None

    def _drop(self) -> None:
        _log.warning("the prepared graph %s is damaged: it is made anew", self.path)
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, contents: Mapping[str, bytes], verdict: Mapping[str, Any]) -> None:
        """Write a folder, whole or not at all; where that cannot be, say so and go on."""
        path = self.path
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            temporary.mkdir(parents=True)
            for name, content in contents.items():
                (temporary / name).write_bytes(content)
            facts = {"shaped_by": self.shaped_by, **verdict}
            (temporary / _FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")
            temporary.rename(path)
        except OSError as error:
            if not path.is_dir():  # another process may have been faster
                _log.warning("the prepared graph cannot be kept in %s: %s", path.parent, error)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: digest_bytes(content).hex() for name, content in contents.items()}
