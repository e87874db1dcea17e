"""``pipeline info`` and ``pipeline backbones``: look without touching."""

from __future__ import annotations
from typing import Annotated
from cyclopts import Parameter
from pipeline.config import EmbedOptions


def info(
    file: str,
    *,
    embed: Annotated[EmbedOptions, Parameter(name="*")] = EmbedOptions(),
    json: bool = False,
) -> int:
    """Say.

    Parameters
    ----------
    file
        A file.
    json
        Print.
    """
    print(file, embed, json)
    return 0
