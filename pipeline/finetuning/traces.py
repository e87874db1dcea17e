"""Traces: the files of a fine-tuning, beside the model that it makes."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config import FinetuneOptions
from pipeline.digest import DIGEST_SIZE, digest_bytes
from pipeline.durable import write_durably
from pipeline.errors import InputError, reason_of
from pipeline.finetuning.rows import TuningRows
from pipeline.model import TransferModel, folded_heads

__all__ = ["Traces", "refuse_place"]


@dataclass(frozen=True)
class Traces:
    """Where a tuning leaves what it needs, and what the user may look at.

    Parameters
    ----------
    model : Path
        The model to be made.
    key : str
        What decides every number of this tuning: files of another are made anew.
    kept : bool
        Whether the log stays.
    """

    model: Path
    key: str
    kept: bool

    @classmethod
    def of(
        cls,
        path: Path,
        model: TransferModel,
        rows: TuningRows,
        options: FinetuneOptions,
        kept: bool,
    ) -> Traces:
        """Name the files of a tuning, and digest all that it depends on."""
        decides = {
            "specs": {name: spec.to_json() for name, spec in model.specs.items()},
            "layers": list(model.layers),
            "heads": {
                name: [digest_bytes(own.coef.tobytes()).hex(), own.intercept.tolist()]
                for name, own in folded_heads(model).items()
            },
            "options": asdict(options),
            "split": rows.split.to_json(),
            "rows": [digest.hex() for digest in rows.digests],
            "targets": {name: list(map(str, t.values)) for name, t in rows.targets.items()},
        }
        text = json.dumps(decides, sort_keys=True, default=str)
        return cls(path, hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), kept)

    @property
    def boundary(self) -> Path:
        """The boundary cache."""
        return self._beside("boundary.h5")

    @property
    def state(self) -> Path:
        """The state after the last epoch."""
        return self._beside("state.pt")

    @property
    def log(self) -> Path:
        """The log as a table."""
        return self._beside("log.csv")

    @property
    def picture(self) -> Path:
        """The log as a picture."""
        return self._beside("log.png")

    def _beside(self, suffix: str) -> Path:
        return self.model.with_name(f"{self.model.name}.{suffix}")

    def read_state(self) -> dict[str, Any] | None:
        """Read the state of a tuning that was killed; None where there is none of this key."""
        try:
            content = self.state.read_bytes()
        except OSError:
            return None
        digest, content = content[:DIGEST_SIZE], content[DIGEST_SIZE:]
        if digest != digest_bytes(content):  # damaged, or not ours: torch would not always notice
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
        return state if state["key"] == self.key else None

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Keep the state, whole or not at all."""
        file = io.BytesIO()
        torch.save({**state, "key": self.key}, file)
        content = file.getvalue()
        with write_durably(self.state) as temporary:
            temporary.write_bytes(digest_bytes(content) + content)

    def left(self) -> list[Path]:
        """List what stands there that only a tuning under way needs."""
        return [path for path in (self.state, self.boundary) if path.exists()]

    def remove(self) -> None:
        """Remove that."""
        for path in self.left():
            path.unlink(missing_ok=True)


def refuse_place(model: Path) -> None:
    """Refuse a place where nothing can be written, before anything is computed.

    Raises
    ------
    InputError
    """
    if model.is_dir() or not model.parent.is_dir():
        wrong = "it is a folder" if model.is_dir() else "it lies in a folder that does not exist"
        raise InputError(f"cannot write the model {model}: {wrong}. Give the path of a file.")
    try:
        with tempfile.TemporaryFile(dir=model.parent):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write the model {model}: its folder takes no files ({reason_of(error)}). "
            "Give the path of a file in another one."
        ) from error
