"""The pages of ``--help``: plain text, a name on one line, its sentence below."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

__all__ = ["Manual"]

_WIDEST = 100
_DEFAULTS = {"False": "off"}
_VALUES = {"STR": "VALUE", "INT": "N", "FLOAT": "X"}


class Manual:
    """Formats help for cyclopts; reads the same on a terminal, in a pipe and in a file."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one panel: the commands, the arguments or the options."""
        if not panel.entries:
            return
        entries = panel.entries
        if panel.format == "command":
            entries = sorted(entries, key=lambda entry: entry.display_labels[0].startswith("-"))
            width = max(len(", ".join(entry.display_labels)) for entry in entries) + 2
            blocks = [_row(entry, width, _columns()) for entry in entries]
        else:
            blocks = [_paragraph(entry, _columns()) for entry in entries]
        _print(console, "\n".join([f"{panel.title}:", *blocks, ""]))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the line that says how to call it."""
        _print(console, f"Usage: {_plain(usage)}\n")

    def render_description(self, console: Console, options: ConsoleOptions, text: Any) -> None:
        """Print what it does."""
        for paragraph in _plain(text).split("\n\n"):
            _print(console, _filled(paragraph, _columns()) + "\n")


def _columns() -> int:
    """Width of the terminal; ``COLUMNS`` says it where there is none."""
    return shutil.get_terminal_size().columns


def _row(entry: HelpEntry, indent: int, width: int) -> str:
    name = ", ".join(entry.display_labels)
    return _filled(_plain(entry.description), width, f"  {name:{indent}}", " " * (indent + 2))


def _paragraph(entry: HelpEntry, width: int) -> str:
    names = ", ".join(entry.display_labels)
    if not entry.positional_label and entry.metavar:
        stem = entry.metavar.removesuffix("...")
        value = "|".join(entry.choices or ()) or _VALUES.get(stem, stem)
        names += f" {value}{'...' * entry.metavar.endswith('...')}"
    sentence = _plain(entry.description)
    if entry.required:
        sentence += " [required]"
    elif entry.default is not None and "[default:" not in sentence:
        sentence += f" [default: {_DEFAULTS.get(entry.default, entry.default)}]"
    return f"  {names}\n" + _filled(sentence, width, " " * 6)


def _plain(text: Any) -> str:
    """Take the words out of rich's and cyclopts' wrappings."""
    text = getattr(text, "primary_renderable", text)
    return str(getattr(text, "plain", text)).strip()


def _filled(text: str, width: int, first: str = "", indent: str | None = None) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        min(width, _WIDEST),
        initial_indent=first,
        subsequent_indent=first if indent is None else indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
