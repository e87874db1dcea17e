"""Cells of CSV files: text that a spreadsheet would take for a formula, and back.

A spreadsheet computes whatever begins with ``=``, ``+``, ``-`` or ``@``, also where it is
the name of a stranger's file. A ``'`` in front makes text of it; ours writes one, and takes
one off again. Numbers need none.
"""

from __future__ import annotations

import re

__all__ = ["DECIMAL", "guarded", "unguarded"]

DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""Text that is a decimal number."""

_FORMULA = re.compile(r"'*[=+\-@]")
_GUARDED = re.compile(r"'+[=+\-@]")


def guarded(cell: str) -> str:
    r"""Write a cell so that no spreadsheet computes it.

    What looks guarded already is guarded once more, so that `unguarded` gives every text back.

    Examples
    --------
    >>> [guarded(cell) for cell in ("=A1", "'=A1", "-0.5", "owl", "'owl'")]
    ["'=A1", "''=A1", '-0.5', 'owl', "'owl'"]
    """
    return f"'{cell}" if _FORMULA.match(cell) and not DECIMAL.fullmatch(cell) else cell


def unguarded(cell: str) -> str:
    """Read a cell that `guarded` may have written, or a spreadsheet.

    Examples
    --------
    >>> [unguarded(cell) for cell in ("'=A1", "''=A1", "-0.5", "'owl'")]
    ['=A1', "'=A1", '-0.5', "'owl'"]
    """
    return cell[1:] if _GUARDED.match(cell) else cell
