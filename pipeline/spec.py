"""EmbeddingSpec: everything that changes a number in a cache.

Not the layers and not the rows (content: both can be appended), not the labels,
not library versions (recorded and reported, never part of the key).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pipeline.digest import digest_json
from pipeline.errors import InputError

__all__ = ["EmbeddingSpec", "Precision", "Preprocessing", "Resize", "StoreDtype"]

Resize = Literal["crop", "squash", "pad"]
Precision = Literal["float32", "bfloat16", "float16"]
StoreDtype = Literal["float16", "float32"]

PREPROCESS_VERSION = 1
"""Raised when a golden vector moves because our own preprocessing changed."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a network.

    Parameters
    ----------
    image_size : (int, int)
        Height and width that the network sees, in pixels.
    resize : {"crop", "squash", "pad"}
        ``crop`` scales the shorter side to ``image_size / crop_fraction`` and keeps
        the centre; ``squash`` ignores the aspect ratio; ``pad`` scales the longer side
        to ``image_size`` and pads with the mean colour of the network.
    crop_fraction : float
        Share of the resized side that the centre crop keeps (only for ``crop``).
    interpolation : {"bicubic", "bilinear"}
        Antialiased, on 8-bit values.
    mean, std : tuple of float
        A value for each channel, on the scale of 0 to 1.

    Examples
    --------
    >>> Preprocessing(image_size=(224, 224), crop_fraction=0.875).resized_side()
    (256, 256)
    """

    image_size: tuple[int, int] = (224, 224)
    resize: Resize = "crop"
    crop_fraction: float = 0.875
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.resize not in get_args(Resize):
            raise InputError(
                f"resize is {self.resize!r}, but must be one of {', '.join(get_args(Resize))}."
            )
        if min(self.image_size) < 1:
            raise InputError(f"image_size is {self.image_size}, but must be at least 1 x 1 pixel.")

    def resized_side(self) -> tuple[int, int]:
        """Height and width that the shorter side is scaled to before the crop, in pixels."""
        height, width = self.image_size
        return int(height / self.crop_fraction), int(width / self.crop_fraction)


@dataclass(frozen=True)
class EmbeddingSpec:
    """Everything that changes a number: two rows of equal spec and content are equal.

    Parameters
    ----------
    backbone : str
        Name of the backbone.
    weights_digest : str
        Hex digest of its state dict: names, dtypes, shapes and values.
    preprocess : Preprocessing
        From picture to input.
    pooling : str
        How a map becomes a vector; several names joined by ``,`` make several layers.
    precision : {"float32", "bfloat16", "float16"}
        Arithmetic of the forward pass. Pooling is always in float32.
    decoder : str
        The decoder of first choice; which files it leaves to PIL depends on the file.
    store_dtype : {"float16", "float32"}
        Type of the stored values.
    modality : str
        ``"image"``.
    preprocess_version : int
        Version of our own preprocessing code.

    Examples
    --------
    >>> spec = EmbeddingSpec("resnet", "00ff", Preprocessing(), "mean", "float32")
    >>> other = dataclasses.replace(spec, precision="bfloat16")
    >>> spec.difference(other)
    ['precision is float32 here and bfloat16 there']
    >>> spec.key() == EmbeddingSpec.from_json(spec.to_json()).key()
    True
    """

    backbone: str
    weights_digest: str
    preprocess: Preprocessing
    pooling: str
    precision: Precision
    decoder: str = "torchcodec"
    store_dtype: StoreDtype = "float16"
    modality: str = "image"
    preprocess_version: int = PREPROCESS_VERSION

    def __post_init__(self) -> None:
        if self.store_dtype not in get_args(StoreDtype):
            raise InputError(
                f"store_dtype is {self.store_dtype!r}, but must be one of "
                f"{', '.join(get_args(StoreDtype))}."
            )

    def key(self) -> str:
        """Hex digest of all fields: what a cache is looked up by."""
        return digest_json(self.to_json()).hex()

    def difference(self, other: EmbeddingSpec) -> list[str]:
        """Name the fields that differ from ``other``, with both values, in words."""
        ours, theirs = dict(_flat(self.to_json())), dict(_flat(other.to_json()))
        return [
            f"{name} is {_shown(ours[name])} here and {_shown(theirs[name])} there"
            for name in ours
            if ours[name] != theirs[name]
        ]

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON values, field by field."""
        return {
            name: _listed(value) if isinstance(value, dict) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EmbeddingSpec:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            When a field is missing, unknown or of another type.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        nested = {field.name for field in dataclasses.fields(Preprocessing)}
        try:
            preprocess = {name: _tupled(item) for name, item in value["preprocess"].items()}
            if set(value) != fields or set(preprocess) != nested:
                odd = sorted(set(value) ^ fields | set(preprocess) ^ nested)
                raise InputError(f"a spec has missing or unknown fields: {', '.join(odd)}.")
            return cls(**{**value, "preprocess": Preprocessing(**preprocess)})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a spec: {error}.") from None


def _listed(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(item) if isinstance(item, tuple) else item for name, item in value.items()}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _flat(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item)
        else:
            yield name, item


def _shown(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)
