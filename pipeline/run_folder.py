"""RunFolder: what stands in the folder of a run, and whose run it is."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import EmbedOptions, TrainOptions, TuneOptions
from pipeline.durable import write_durably
from pipeline.errors import InputError, OptionError
from pipeline.version import __version__

__all__ = ["GIVEN", "RunFolder"]

GIVEN = "given"
"""Key of ``config.toml``: the options that were given; the others were left open."""

_OPTIONS: dict[str, Any] = {"embed": EmbedOptions, "train": TrainOptions, "finetune": TuneOptions}

_NO_MATTER = frozenset(
    {"batch-size", "device", "max-pixels", "no-forward-cache", "num-workers", "on-bad-input"}
    | {"prune"}
)
"""Options that change no number: they may differ from one run to the next."""

_ONE_OR_SEVERAL = frozenset({"target"})
"""Options that are written as a text where they hold only one, as most runs have."""

_Tables = dict[str, Any]
"""What ``config.toml`` holds: a table for each stage, and `GIVEN`."""


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

    def claim(self, *options: Any, overwrite: bool) -> None:
        """Make the folder, unless a run of another configuration stands there.

        Parameters
        ----------
        *options : EmbedOptions, TrainOptions, TuneOptions
        overwrite : bool

        Raises
        ------
        OptionError
            When another configuration stands there, naming what differs.
        InputError
            When the folder cannot be made.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file. Give a folder to write into: --out DIR.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {self.path}: {error.strerror}. Give a folder that can "
                "be written: --out DIR."
            ) from error
        if self.config.exists() and not overwrite:
            differences = self._differences(_tables(options))
            if differences:
                raise OptionError(
                    f"{self.path} holds a run of another configuration: {'; '.join(differences)}. "
                    "Give another --out, or --overwrite: a cache whose spec fits is kept, and "
                    "nothing is embedded again."
                )

    def begin(self, *options: Any) -> None:
        """Write down the configuration, before the first batch; as for `claim`."""
        self._write_config(_tables(options))

    def finish(self, embed: Mapping[str, Any], train: Mapping[str, Any]) -> None:
        """Write down what every option that was left open became."""
        tables = self._recorded()
        for name, resolved in (("embed", embed), ("train", train)):
            became = {
                _key(option): _plain(option, value) for option, value in resolved.items() if value
            }
            tables[name] = _in_order(name, tables[name] | became)
        self._write_config(tables)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write ``metrics.json``."""
        self._write(self.metrics, json.dumps(metrics, indent=2) + "\n")

    def _differences(self, ours: _Tables) -> list[str]:
        """Name the options that were given otherwise, here or there.

        What is left open here is answered by the cache where it can, so it is no difference.
        """
        theirs, found = self._recorded(), []
        given_here, given_there = (set(side[GIVEN].split(", ")) for side in (ours, theirs))
        for table in _OPTIONS:
            answered = table == "embed" and self.cache.exists()
            for name in dict.fromkeys((*ours[table], *theirs[table])):
                here, there = (side[table].get(name, "not given") for side in (ours, theirs))
                given = name in given_here or (name in given_there and not answered)
                if given and here != there and name not in _NO_MATTER:
                    found.append(f"{name} is {here} here and {there} there")
        return found

    def _recorded(self) -> _Tables:
        try:
            found = tomllib.loads(self.config.read_text(encoding="utf-8"))
            tables = {name: dict(found[name]) for name in ("embed", "train")}
            tables["finetune"] = dict(found.get("finetune", {}))
            return {GIVEN: str(found.get(GIVEN, "")), **tables}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.config} cannot be read as the configuration of a run ({error}). "
                "Give another --out, or --overwrite."
            ) from None

    def _write_config(self, tables: _Tables) -> None:
        import tomli_w

        text = f"# transfer-pipeline {__version__}: what this run was made with\n\n"
        self._write(self.config, text + tomli_w.dumps(tables))

    def _write(self, path: Path, text: str) -> None:
        try:
            with write_durably(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}.") from error


def _tables(every: Sequence[Any]) -> _Tables:
    """Give the options as TOML, without those that have no value."""
    given: list[str] = []
    tables: dict[str, dict[str, Any]] = {table: {} for table in _OPTIONS}
    left_out = [kind() for kind in list(_OPTIONS.values())[len(every) :]]
    for table, options in zip(_OPTIONS, [*every, *left_out], strict=True):
        for field in dataclasses.fields(options):
            value = getattr(options, field.name)
            if value not in (None, ()):
                tables[table][_key(field.name)] = _plain(field.name, value)
            if value != field.default:
                given.append(_key(field.name))
    return {GIVEN: ", ".join(given), **tables}


def _in_order(table: str, options: Mapping[str, Any]) -> dict[str, Any]:
    names = [_key(field.name) for field in dataclasses.fields(_OPTIONS[table])]
    return {name: options[name] for name in names if name in options}


def _key(name: str) -> str:
    return name.replace("_", "-")


def _plain(option: str, value: Any) -> Any:
    """Give what TOML can hold; a path so that it holds from any folder."""
    if isinstance(value, tuple):
        return value[0] if option in _ONE_OR_SEVERAL and len(value) == 1 else list(value)
    return str(value.resolve()) if isinstance(value, Path) else value
