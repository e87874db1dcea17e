"""The table of what training compared, the winner first, and what its layers are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.cli.talk import say

if TYPE_CHECKING:
    from pipeline.model import TransferModel
    from pipeline.results import Candidate, TargetResults

__all__ = ["say_comparison"]

_HEADER = ("fusion + head", "layers", "LOO {figure}", "LOO {loss}", "seconds", "")
_FIGURES = {"number": ("R2", "squared error")}
_FEW = 2
"""Layers that are named and not only counted."""


def say_comparison(model: TransferModel) -> None:
    """Write the table of every target, and the share of each layer where it is known."""
    for target, results in model.results.items():
        if len(results.fusions) > 1:
            say(f"compared for {target} on rows left out:", *_table(results))
        shares = getattr(model.heads[target][-1], "layer_importance_", None)
        if shares and len(results.layers) > 1:
            what = "it" if len(model.heads) == 1 else target
            say(f"share of the layers in {what}: {_shares(shares)}")


def _table(results: TargetResults) -> list[str]:
    figure, loss = _FIGURES.get(results.kind, ("accuracy", "log-loss"))
    header = tuple(cell.format(figure=figure, loss=loss) for cell in _HEADER)
    rows = [header, *(_cells(one, results.fusions[0]) for one in results.fusions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            ["", *(cell.ljust(width) for cell, width in zip(row, widths, strict=True))]
        ).rstrip()
        for row in rows
    ]


def _cells(one: Candidate, winner: Candidate) -> tuple[str, ...]:
    figure, loss, error = one.score.values()
    taps = [name.rpartition("/")[2] for name in one.layers]
    return (
        f"{one.fusion} + {one.head}",
        ", ".join(taps) if len(taps) <= _FEW else f"{len(taps)} layers",
        "" if figure is None else f"{figure:.3f}",
        "" if loss is None else f"{loss:.4g}" + ("" if error is None else f" ± {error:.2g}"),
        "" if one.seconds is None else f"{one.seconds:.1f}",
        _note(one, winner),
    )


def _note(one: Candidate, winner: Candidate) -> str:
    notes = ["chosen"] if one is winner else []
    if one is not winner and one.tied and winner.tied:
        notes.append("cannot be told apart from the winner")
    if one.by == "cv":
        notes.append("by cross-validation, not LOO")
    return ", ".join(notes)


def _shares(shares: dict[str, Any]) -> str:
    used = sorted(shares.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name.rpartition('/')[2]} {share:.0%}" for name, share in used if share > 0)
