"""``pipeline info`` and ``pipeline backbones``: look without touching."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline.cli.apart import read_apart
from pipeline.cli.talk import show_json, show_line
from pipeline.errors import InputError, nearest
from pipeline.results import headline

__all__ = ["backbones", "info"]


def info(file: Path, /, *, json: bool = False) -> int:
    """Say what a cache or a model file holds.

    Parameters
    ----------
    file
        A cache or a model file; its content says which.
    json
        Print one JSON object on standard output.
    """
    found = read_apart(_info, file)
    if json:
        show_json(found)
    else:
        for line in _in_words(found):
            show_line(line)
    return 0


def backbones(pattern: str = "", /) -> int:
    """List the backbones.

    Parameters
    ----------
    pattern
        Part of a name, or a pattern with * and ?: looks among those of timm and torchvision,
        too. [default: the bundled ones]
    """
    from pipeline.backbones import BACKBONES, list_backbones

    if not pattern:
        for name, entry in BACKBONES.items():
            extra = f" (pip install 'transfer-pipeline[{entry.extra}]')" if entry.extra else ""
            show_line(f"{name}  {entry.summary}{extra}")
        show_line("timm/<model>  any model of timm: pipeline backbones 'timm/*'")
        show_line("torchvision/<model>  any model of torchvision: pipeline backbones resnet")
        return 0
    names = list_backbones()
    found = [name for name in names if fnmatchcase(name.lower(), f"*{pattern.lower()}*")]
    if not found:
        guess = nearest(pattern, [name.rpartition("/")[2] for name in names])
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise InputError(
            f"no backbone is called {pattern!r}.{hint} Give part of a name, or a pattern like "
            "'vit_*', or nothing for the bundled ones."
        )
    for name in found:
        show_line(name)
    return 0


def _info(file: Path) -> dict[str, Any]:
    from pipeline.cache import is_cache

    return _cache_info(file) if is_cache(file) else _model_info(file)


def _cache_info(file: Path) -> dict[str, Any]:
    from pipeline.cache import EmbeddingStore

    with EmbeddingStore.open(file) as store:
        return {
            "kind": "cache",
            "rows": len(store),
            "layers": store.layers,
            "complete": store.complete,
            "failed": len(store.failed),
            "failures": {failure.id: failure.reason for failure in store.failed},
            "targets": {name: column.kind for name, column in store.targets.items()},
            "specs": {name: spec.to_json() for name, spec in store.specs.items()},
            "created": store.created,
            "library_versions": store.library_versions,
        }


def _model_info(file: Path) -> dict[str, Any]:
    from pipeline.model import read_model_file

    description, tensors = read_model_file(file)
    targets = dict(description["targets"])
    inside = [
        name
        for name in description["specs"]
        if any(tensor.startswith(f"backbones/{name}/") for tensor in tensors)
    ]
    return {
        "kind": "model",
        "rows": max(found["n_train"] for found in targets.values()),
        "layers": dict(description["layers"]),
        "complete": True,
        "targets": targets,
        "specs": description["specs"],
        "weights_inside": inside,
    }


def _in_words(found: dict[str, Any]) -> list[str]:
    rows = "rows" if found["kind"] == "cache" else "training rows"
    lines = [f"{found['kind']}, {found['rows']} {rows}, {len(found['layers'])} layers"]
    if not found["complete"]:
        lines.append("an unfinished embedding lies beside it: the same embed command goes on")
    for name, spec in found["specs"].items():
        height, width = spec["preprocess"]["image_size"]
        inside = ", its weights inside" if name in found.get("weights_inside", ()) else ""
        lines.append(
            f"backbone {name}: {height} x {width} px, {spec['preprocess']['resize']}, pooling "
            f"{spec['pooling']}, {spec['precision']}, stored as {spec['store_dtype']}{inside}"
        )
    lines += [f"layer {name}  {width}" for name, width in found["layers"].items()]
    lines += [f"target {name}: {_target(about)}" for name, about in found["targets"].items()]
    lines += [f"failed {name}: {reason}" for name, reason in found.get("failures", {}).items()]
    return lines


def _target(about: str | dict[str, Any]) -> str:
    if isinstance(about, str):
        return about or "not decided"
    figure = headline(about["kind"])
    value = about.get(figure)
    held_out = f", {figure} {value:.3f} on {about['n_test']} held-out rows" if value else ""
    return f"{about['kind']}, {about['fusion']} + {about['head']}{held_out}"
