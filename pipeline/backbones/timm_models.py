"""Networks of timm: any model by its name, its own preprocessing, its blocks as taps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pipeline.backbones.catalog import adapt
from pipeline.backbones.checkpoint import load_weights, read_state
from pipeline.backbones.network import FEATURES, OUTPUT, Network, cannot_take
from pipeline.backbones.stages import find_stages, worth_tapping
from pipeline.backbones.weights import DEFAULT, RANDOM, seeded
from pipeline.errors import BackboneError, UnknownNameError
from pipeline.spec import Preprocessing, Resize

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load", "names"]

_log = logging.getLogger(__name__)
_STEMS = {"stem", "act1", "bn1", "conv1", "conv0", "conv_0", "features.norm0"}
_RESIZES: dict[str, Resize] = {"center": "crop", "squash": "squash", "border": "pad"}


def names() -> list[str]:
    """All models that timm can build."""
    import timm

    return list(timm.list_models())


def load(model: str, *, weights: str, image_size: int | None, resize: Resize | None) -> Network:
    """Build a model of timm.

    Parameters
    ----------
    model : str
        timm's name, with or without the tag of its weights.
    weights : str
        ``"default"``, ``"random"`` or the path of a weights file.
    image_size : int or None
        Pixels a side, instead of the model's own.
    resize : str or None
        Resize rule, instead of the model's own.
    """
    _check_name(model)
    module = _build(model, weights)
    own = _preprocessing(module)
    preprocess = adapt(own, image_size, resize)
    if preprocess.image_size != own.image_size:
        _resize_input(module, preprocess.image_size)
    size = preprocess.image_size
    blocks = worth_tapping(module, _named_blocks(module), size) or find_stages(module, size)
    prefix = getattr(module, "num_prefix_tokens", 0) or 0
    return Network(
        module,
        {name: name for name in blocks} | {FEATURES: OUTPUT},
        preprocess,
        prefix_tokens=prefix,
        class_token=prefix > 0 and getattr(module, "cls_token", None) is not None,
        weights=weights,
    )


def _check_name(model: str) -> None:
    import timm

    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        accepted = names()
    elif tag:
        accepted = timm.list_pretrained(f"{architecture}.*")
    else:
        return
    if model not in accepted:
        raise UnknownNameError("backbone", f"timm/{model}", [f"timm/{name}" for name in accepted])


def _build(model: str, weights: str) -> nn.Module:
    import timm

    if weights != DEFAULT:
        with seeded():
            module: nn.Module = timm.create_model(model, pretrained=False, num_classes=0)
        if weights != RANDOM:
            load_weights(module, read_state(weights), weights)
        return module
    try:
        built: nn.Module = timm.create_model(model, pretrained=True, num_classes=0)
    except Exception as error:  # whatever the hub's client raises when it cannot be reached
        raise BackboneError(
            f"the weights of timm/{model} are not on this machine and cannot be fetched "
            f"({type(error).__name__}). Give a file: --weights FILE.safetensors "
            "(weights=... in Python), or take a bundled backbone: efficientnet_lite0."
        ) from error
    return built


def _resize_input(module: nn.Module, image_size: tuple[int, int]) -> None:
    """Fit position embeddings and windows to another image size, where there are any."""
    set_input_size: Any = getattr(module, "set_input_size", None)
    if set_input_size is None:
        return
    try:
        set_input_size(img_size=image_size)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise cannot_take(image_size, error) from error


def _preprocessing(module: nn.Module) -> Preprocessing:
    from timm.data import resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(module)
    interpolation = config["interpolation"]
    if interpolation not in ("bicubic", "bilinear"):
        _log.warning("interpolation %s is not available: bicubic is used", interpolation)
        interpolation = "bicubic"
    return Preprocessing(
        image_size=tuple(config["input_size"][1:]),
        resize=_RESIZES.get(config.get("crop_mode", "center"), "crop"),
        crop_fraction=float(config["crop_pct"]),
        interpolation=interpolation,
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
    )


def _named_blocks(module: nn.Module) -> list[str]:
    """List every child of ``blocks``, else the stages of timm's own table, without the stem."""
    blocks = getattr(module, "blocks", None)
    if blocks is not None and any(True for _ in blocks.children()):
        return [f"blocks.{name}" for name, _ in blocks.named_children()]
    table = getattr(module, "feature_info", None)
    stages = [info.get("module") for info in table] if isinstance(table, list) else []
    known = {name for name, _ in module.named_modules() if name}
    return [name for name in stages if name in known and not {name, name.split(".")[0]} & _STEMS]
