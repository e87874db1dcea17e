"""RunFolder: what stands in the folder of a run, and whose run it is."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import EmbedOptions, TrainOptions
from pipeline.durable import write_durably
from pipeline.errors import InputError, OptionError
from pipeline.version import __version__

__all__ = ["RunFolder"]

_OPEN = (None, "auto", ())


class RunFolder:
    """The folder of a run.

    Parameters
    ----------
    path : Path
        Made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cache = path / "cache.h5"
        self.model = path / "model.safetensors"
        self.config = path / "config.toml"
        self.metrics = path / "metrics.json"
        self.predictions = path / "predictions.csv"
        self.failed = path / "failed.csv"

    def begin(self, embed: EmbedOptions, train: TrainOptions, *, overwrite: bool) -> None:
        """Take the folder for a run, and write down its configuration.

        Raises
        ------
        OptionError
            When another configuration stands there, naming what differs.
        InputError
            When the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {self.path}: {error.strerror}. Give a folder that can "
                "be written: --out DIR."
            ) from error
        ours = _tables(embed, train)
        if self.config.exists() and not overwrite:
            differences = _differences(ours, self._recorded())
            if differences:
                raise OptionError(
                    f"{self.path} holds a run of another configuration: {'; '.join(differences)}. "
                    "Give another --out, or --overwrite: a cache whose spec fits is kept, and "
                    "nothing is embedded again."
                )
            return
        self._write_config(ours)

    def finish(self, embed: Mapping[str, Any], train: Mapping[str, Any]) -> None:
        """Write down what every option that was left open became."""
        recorded = self._recorded()
        for table, resolved in (("embed", embed), ("train", train)):
            recorded[table] |= {
                name.replace("_", "-"): value
                for name, value in resolved.items()
                if value is not None
            }
        self._write_config(recorded)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write ``metrics.json``."""
        self._write(self.metrics, json.dumps(metrics, indent=2) + "\n")

    def _recorded(self) -> dict[str, Any]:
        try:
            found = tomllib.loads(self.config.read_text(encoding="utf-8"))
            return {"embed": dict(found["embed"]), "train": dict(found["train"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.config} cannot be read as the configuration of a run ({error}). "
                "Give another --out, or --overwrite."
            ) from None

    def _write_config(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        import tomli_w

        text = f"# transfer-pipeline {__version__}: what this run was made with\n\n"
        self._write(self.config, text + tomli_w.dumps(tables))

    def _write(self, path: Path, text: str) -> None:
        try:
            with write_durably(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}.") from error


def _tables(embed: EmbedOptions, train: TrainOptions) -> dict[str, dict[str, Any]]:
    """Give the options as TOML tables, without those that are not given."""
    return {
        name: {
            field.name.replace("_", "-"): _plain(getattr(options, field.name))
            for field in dataclasses.fields(options)
            if getattr(options, field.name) is not None
        }
        for name, options in (("embed", embed), ("train", train))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Name the options that are given here and stand otherwise there."""
    found = []
    for table, options in ours.items():
        for name, value in options.items():
            other = theirs[table].get(name)
            if value != other and value not in _OPEN and value != []:
                found.append(f"{name} is {value} here and {other} there")
    return found
