"""``--config``: a TOML file answers for the flags that are not given."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts.config import Dict

from pipeline.config import EmbedOptions, TrainOptions, TuneOptions
from pipeline.errors import InputError, UnknownNameError, reason_of
from pipeline.run_folder import GIVEN

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.argument import ArgumentCollection

__all__ = ["answer_from_file"]

_TABLES: dict[str, Any] = {"embed": EmbedOptions, "train": TrainOptions, "finetune": TuneOptions}


def answer_from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in the flags that stand in the file behind ``--config`` and nowhere else.

    Raises
    ------
    InputError
        When it cannot be read, is no TOML, or holds a table or a key that no command reads.
    """
    given = [argument for argument in arguments if "--config" in argument.names]
    if not given or not given[0].tokens:
        return
    path = Path(given[0].tokens[0].value)
    for table in _read(path).values():
        Dict(table, use_commands_as_keys=False, source=str(path))(app, commands, arguments)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise InputError(
            f"{path} cannot be read as a configuration: {reason}. Give a TOML file with the "
            "tables [embed], [train] and [finetune]."
        ) from None
    found.pop(GIVEN, None)
    for name, table in found.items():
        if not isinstance(table, dict):
            raise InputError(
                f"{path}: {name!r} stands outside the tables [embed], [train] and [finetune]."
            )
        if name not in _TABLES:
            raise InputError(f"{path}: {UnknownNameError('table', name, tuple(_TABLES))}")
        known = [field.name.replace("_", "-") for field in dataclasses.fields(_TABLES[name])]
        for key in table:
            if key not in known:
                raise InputError(f"{path}, [{name}]: {UnknownNameError('key', key, known)}")
    return found
