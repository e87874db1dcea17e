"""Networks of torchvision: any classification model by its name, its own weights enum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.backbones.catalog import adapt
from pipeline.backbones.checkpoint import load_weights, read_state
from pipeline.backbones.network import FEATURES, OUTPUT, Network
from pipeline.backbones.stages import find_stages
from pipeline.backbones.weights import DEFAULT, RANDOM, seeded
from pipeline.errors import BackboneError, UnknownNameError
from pipeline.spec import Preprocessing, Resize

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load", "names"]

_CLASSIFIERS = ("fc", "classifier", "head", "heads")


def names() -> list[str]:
    """All classification models of torchvision."""
    from torchvision import models

    return list(models.list_models(module=models))


def load(model: str, *, weights: str, image_size: int | None, resize: Resize | None) -> Network:
    """Build a model of torchvision; the parameters are those of `timm_models.load`."""
    from torchvision import models

    if model not in names():
        accepted = [f"torchvision/{name}" for name in names()]
        raise UnknownNameError("backbone", f"torchvision/{model}", accepted)
    own = _preprocessing(models.get_model_weights(model).DEFAULT)
    preprocess = adapt(own, image_size, resize)
    module = _build(model, weights, preprocess)
    classified = _drop_classifier(module)
    if weights not in (DEFAULT, RANDOM):
        load_weights(module, read_state(weights), weights)
    taps = {name: name for name in find_stages(module, preprocess.image_size)}
    if classified:
        taps[FEATURES] = OUTPUT
    token = hasattr(module, "class_token")
    return Network(
        module, taps, preprocess, prefix_tokens=int(token), class_token=token, weights=weights
    )


def _build(model: str, weights: str, preprocess: Preprocessing) -> nn.Module:
    from torchvision import models

    sized = {"image_size": preprocess.image_size[0]} if model.startswith("vit_") else {}
    if weights != DEFAULT:
        with seeded():
            module: nn.Module = models.get_model(model, weights=None, **sized)
        return module
    try:
        module = models.get_model(model, weights="DEFAULT", **sized)
    except ValueError as error:
        raise BackboneError(
            f"torchvision/{model} cannot take this image size: {error}. Leave --image-size out."
        ) from error
    except Exception as error:  # whatever the download raises where there is no network
        raise BackboneError(
            f"the weights of torchvision/{model} are not on this machine and cannot be fetched "
            f"({type(error).__name__}). Give a file: --weights FILE.pth (weights=... in Python), "
            "or take a bundled backbone: efficientnet_lite0."
        ) from error
    return module


def _preprocessing(weights: Any) -> Preprocessing:
    preset = weights.transforms()
    crop, side = preset.crop_size[0], preset.resize_size[0]
    return Preprocessing(
        image_size=(crop, crop),
        crop_fraction=crop / side,
        interpolation="bicubic" if "bicubic" in str(preset.interpolation).lower() else "bilinear",
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _drop_classifier(module: nn.Module) -> bool:
    """Replace the last linear layer, so that the output is what it would classify."""
    from torch import nn

    linear = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    if not linear or linear[-1].split(".")[0] not in _CLASSIFIERS:
        return False
    parent, _, child = linear[-1].rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())
    return True
