"""From a name to what is known of its backbone, without building the network where possible.

A bundled backbone stands in the catalog. Of any other, the description that the first
run made lies beside its prepared graph in the user's cache folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.backbones.catalog import BACKBONES, adapt
from pipeline.backbones.device import resolve_device, resolve_precision
from pipeline.backbones.layer import Layer
from pipeline.backbones.loading import load_backbone
from pipeline.backbones.prepared import graph_folder, network_versions
from pipeline.backbones.weights import DEFAULT, RANDOM
from pipeline.digest import digest_bytes, digest_json
from pipeline.durable import write_durably
from pipeline.errors import InputError
from pipeline.spec import EmbeddingSpec, Resize, StoreDtype

__all__ = ["Description", "describe", "forget", "survey"]

_log = logging.getLogger(__name__)

DESCRIPTION_VERSION = 1
"""Raised when the taps or the preprocessing of the same name come out otherwise."""


@dataclass(frozen=True)
class Description:
    """What is known of a backbone before it runs.

    Parameters
    ----------
    spec : EmbeddingSpec
    layers : mapping of str to Layer
        Every tap, bottom to top.
    weights : str
        Where the weights come from.
    """

    spec: EmbeddingSpec
    layers: Mapping[str, Layer]
    weights: str = DEFAULT


def survey(
    name: str,
    *,
    weights: str = DEFAULT,
    pooling: str = "auto",
    image_size: int | None = None,
    resize: Resize | None = None,
    device: str = "auto",
    precision: str = "auto",
    decoder: str = "torchcodec",
    store_dtype: StoreDtype = "float16",
    forward_cache: bool = True,
) -> Description:
    """Describe a backbone; one that is bundled or was used before without importing torch."""
    resolved = resolve_precision(precision, resolve_device(device))
    numbers: dict[str, Any] = {
        "precision": resolved,
        "decoder": decoder,
        "store_dtype": store_dtype,
    }
    if name in BACKBONES and weights == DEFAULT:
        entry = BACKBONES[name]
        pooling, layers = entry.layers(pooling)
        spec = EmbeddingSpec(
            backbone=name,
            weights_digest=entry.weights_digest,
            preprocess=adapt(entry.preprocess, image_size, resize),
            pooling=pooling,
            **numbers,
        )
        return Description(spec, layers)
    shape: dict[str, Any] = {"pooling": pooling, "image_size": image_size, "resize": resize}
    place = _Place(name, weights, shape)
    found = place.read(numbers) if forward_cache else None
    if found is None:
        loaded = load_backbone(name, weights=weights, **shape)
        found = Description(loaded.spec(**numbers), loaded.layers, loaded.network.weights)
        if forward_cache:
            place.keep(found)
    return found


def describe(name: str = "efficientnet_lite0", **options: Any) -> EmbeddingSpec:
    """Give the spec of a backbone; for a bundled one without importing torch.

    Parameters
    ----------
    name : str
        As for `load_backbone`.
    **options
        ``weights``, ``pooling``, ``image_size``, ``resize``, ``device``, ``precision``,
        ``decoder``, ``store_dtype``: each as in `embed`.

    Examples
    --------
    >>> describe("efficientnet_lite0", precision="float32").preprocess.image_size
    (224, 224)
    """
    return survey(name, **options).spec


def forget(weights_digest: str) -> None:
    """Remove the kept descriptions of these weights: the name stands for others by now."""
    for path in graph_folder().glob("*.json"):
        with suppress(OSError):
            if weights_digest.encode() in path.read_bytes():
                path.unlink()


@dataclass(frozen=True)
class _Place:
    """Where the description of a backbone is kept: everything that it follows from."""

    name: str
    weights: str
    shape: Mapping[str, Any]

    @cached_property
    def follows_from(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weights": self._weights_content(),
            "shape": dict(self.shape),
            "networks": network_versions(),
            "description_version": DESCRIPTION_VERSION,
        }

    @property
    def path(self) -> Path:
        return graph_folder() / f"{digest_json(self.follows_from).hex()}.json"

    def _weights_content(self) -> str:
        """Name the weights: a file by its content, for its name may stay and its content not."""
        if self.weights in (DEFAULT, RANDOM) or not Path(self.weights).is_file():
            return self.weights
        return digest_bytes(Path(self.weights).read_bytes()).hex()

    def read(self, numbers: Mapping[str, Any]) -> Description | None:
        path = self.path
        if not path.is_file():
            return None
        try:
            kept = json.loads(path.read_bytes())
            facts = kept["facts"]
            asked = facts["follows_from"] == self.follows_from
            if asked and kept["digest"] == digest_json(facts).hex():
                spec = EmbeddingSpec.from_json(facts["spec"] | numbers)
                layers = {layer["name"]: Layer(**layer) for layer in facts["layers"]}
                return Description(spec, layers, self.weights)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, InputError):
            pass
        _log.warning("the description %s is damaged: it is made anew", path)
        return None

    def keep(self, found: Description) -> None:
        """Keep a description; where the folder cannot be written, the graph says so.

        It is looked for by what a user asks, and by what became of that: a cache answers
        with the latter for every option that is not given again.
        """
        height, width = found.spec.preprocess.image_size
        became = {
            "pooling": found.spec.pooling,
            "image_size": height if height == width else None,
            "resize": found.spec.preprocess.resize,
        }
        with suppress(OSError):
            for place in (self, replace(self, shape=became)):
                facts = {
                    "follows_from": place.follows_from,
                    "spec": found.spec.to_json(),
                    "layers": [asdict(layer) for layer in found.layers.values()],
                }
                kept = {"facts": facts, "digest": digest_json(facts).hex()}
                place.path.parent.mkdir(parents=True, exist_ok=True)
                with write_durably(place.path) as temporary:
                    temporary.write_text(json.dumps(kept, indent=2), encoding="utf-8")
