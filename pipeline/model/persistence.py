"""A model to its file and back: what stands under which key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ModelFileError, reason_of
from pipeline.model.file import read_model_file, write_model_file
from pipeline.model.networks import MODULE, travelling_states
from pipeline.model.steps import pack_step, unpack_step
from pipeline.model.values import ModelValues
from pipeline.results import TargetResults
from pipeline.samples import Part, Split
from pipeline.spec import EmbeddingSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["load_model", "save_model"]

_PARTS: tuple[Part, ...] = ("train", "val", "test")


def save_model(model: ModelValues, path: Path) -> None:
    """Write a model: same content, same bytes."""
    tensors: dict[str, NDArray[Any]] = {}
    heads = {
        target: [
            {"name": name, **pack_step(step, f"heads/{place}/{name}", tensors)}
            for name, step in head.steps
        ]
        for place, (target, head) in enumerate(model.heads.items())
    }
    states = model.states | travelling_states(
        model.specs,
        {name: source for name, source in model.weights.items() if name not in model.states},
        model.given,
    )
    for backbone, state in states.items():
        tensors |= {f"backbones/{backbone}/{name}": value for name, value in state.items()}
    description = {
        "specs": {name: spec.to_json() for name, spec in model.specs.items()},
        "layers": [[name, width] for name, width in model.layers.items()],
        "weights": {
            name: source
            for name, source in model.weights.items()
            if name not in states or source == MODULE
        },
        "targets": [[name, _timeless(found).to_json()] for name, found in model.results.items()],
        "heads": [[name, steps] for name, steps in heads.items()],
        "split": _pack_split(model.split, tensors) if model.split is not None else None,
    }
    write_model_file(path, description, tensors)


def load_model(path: Path, trusted: tuple[str, ...]) -> ModelValues:
    """Read a model; its networks are built later."""
    from sklearn.pipeline import Pipeline

    description, tensors = read_model_file(path)
    try:
        heads = {
            target: Pipeline(
                [(step["name"], unpack_step(step, tensors, trusted)) for step in steps]
            )
            for target, steps in description["heads"]
        }
        split = description["split"]
        return ModelValues(
            specs={n: EmbeddingSpec.from_json(spec) for n, spec in description["specs"].items()},
            layers=dict(description["layers"]),
            heads=heads,
            results={n: TargetResults.from_json(found) for n, found in description["targets"]},
            split=_unpack_split(split, tensors) if split is not None else None,
            weights=dict(description["weights"]),
            states=_states(description["specs"], tensors),
        )
    except ModelFileError:
        raise
    except Exception as error:  # a digest can be forged: whatever odd content raises
        raise ModelFileError(
            f"{path} is not laid out as a model of ours ({reason_of(error)}). Train it again."
        ) from error


def _timeless(results: TargetResults) -> TargetResults:
    """Leave the clock out: the same training gives the same bytes."""
    candidates = tuple(replace(one, seconds=None) for one in results.fusions)
    return replace(results, fusions=candidates)


def _states(
    names: Sequence[str] | Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> dict[str, dict[str, NDArray[Any]]]:
    states: dict[str, dict[str, NDArray[Any]]] = {}
    for name in names:
        prefix = f"backbones/{name}/"
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if own:
            states[name] = own
    return states


def _pack_split(split: Split, tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    tensors["split/digests"] = np.frombuffer(b"".join(split.digests), np.uint8).reshape(-1, 16)
    tensors["split/parts"] = np.array([_PARTS.index(part) for part in split.parts], np.uint8)
    _pack_texts("split/ids", split.ids, tensors)
    if split.groups is not None:
        _pack_texts("split/groups", split.groups, tensors)
    return {"seed": split.seed, "untested": list(split.untested)}


def _unpack_split(entry: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Split:
    grouped = "split/groups" in tensors
    return Split(
        ids=_unpack_texts("split/ids", tensors),
        digests=tuple(bytes(row) for row in tensors["split/digests"]),
        parts=tuple(_PARTS[code] for code in tensors["split/parts"].tolist()),
        seed=entry["seed"],
        groups=_unpack_texts("split/groups", tensors) if grouped else None,
        untested=tuple(entry["untested"]),
    )


def _pack_texts(name: str, texts: Sequence[str], tensors: dict[str, NDArray[Any]]) -> None:
    """Lay texts end to end as UTF-8, and say where each ends."""
    encoded = [text.encode() for text in texts]
    tensors[name] = np.frombuffer(b"".join(encoded), np.uint8)
    tensors[f"{name}/ends"] = np.cumsum([len(text) for text in encoded], dtype=np.int64)


def _unpack_texts(name: str, tensors: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    content, ends = tensors[name].tobytes(), tensors[f"{name}/ends"].tolist()
    starts = [0, *ends][: len(ends)]
    if [0, *ends, len(content)] != sorted([0, *ends, len(content)]):
        raise ValueError(f"the texts of {name} overlap")  # a small file could ask for any memory
    return tuple(content[start:end].decode() for start, end in zip(starts, ends, strict=True))
