"""LayerEmbedder: pictures in, the layers of a frozen backbone side by side out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from pipeline.config import EmbedOptions
from pipeline.embedding import ContentCache, Fetched
from pipeline.errors import InputError, OptionError
from pipeline.fusion import slices_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones import Backbone

__all__ = ["Embeds", "LayerEmbedder"]


class Embeds(BaseEstimator):
    """The embedding half of every door."""

    backbone: Any
    layers: Any
    pooling: str
    image_size: int | None
    resize: Any
    cache_dir: Any
    batch_size: Any
    device: str
    precision: str
    on_bad_input: str

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        return tags

    def _cache(self) -> ContentCache:
        options = EmbedOptions(
            pooling=self.pooling,
            image_size=self.image_size,
            resize=self.resize,
            batch_size=str(self.batch_size),
            device=self.device,
            precision=self.precision,
        )
        folder = None if self.cache_dir is None else Path(self.cache_dir)
        return ContentCache(folder, self.backbone, self.layers, options)

    def _fetch(self, X: Any) -> Fetched:
        if self.on_bad_input not in ("fail", "skip"):
            raise OptionError(f"on_bad_input is {self.on_bad_input!r}, but must be fail or skip.")
        if isinstance(X, str | Path):
            raise InputError(f"X is one path, {str(X)!r}. Give a list, if only of one: [path].")
        if len(X) == 0:
            raise InputError("X holds no inputs. Give at least one path, picture or array.")
        return self._cache().fetch(X, skip=self.on_bad_input == "skip")


class LayerEmbedder(TransformerMixin, Embeds):
    """Pictures in, the layers of a frozen backbone side by side out.

    Parameters
    ----------
    backbone : str or Backbone
        A bundled name, ``timm/<model>``, ``torchvision/<model>``, or what `load_backbone`
        gave.
    layers : str or sequence of str
        ``"auto"``, ``"all"``, or names of layers.
    pooling : str
        How a map becomes a vector.
    image_size : int or None
        Pixels a side; None: the backbone's own.
    resize : {"crop", "squash", "pad"}
    cache_dir : path or None
        Where embeddings are kept; None: a temporary folder of this process.
    batch_size : int or "auto"
    device : {"auto", "cpu", "cuda", "mps"}
    precision : {"auto", "float32", "bfloat16", "float16"}
    on_bad_input : {"fail", "skip"}
        ``skip`` gives a row of NaN for a picture that cannot be read.

    Attributes
    ----------
    layer_slices_ : dict of str to slice
        Columns of each layer, bottom to top.

    Examples
    --------
    >>> from pipeline.backbones import load_backbone
    >>> pictures = np.zeros((2, 40, 40), np.uint8)
    >>> embedder = LayerEmbedder(load_backbone("timm/test_resnet", weights=None))
    >>> embedder.fit_transform(pictures).shape
    (2, 464)
    >>> embedder.get_feature_names_out()[-1]
    'timm/test_resnet/features:95'
    """

    def __init__(
        self,
        backbone: str | Backbone = "efficientnet_lite0",
        *,
        layers: str | Sequence[str] = "auto",
        pooling: str = "auto",
        image_size: int | None = None,
        resize: str = "crop",
        cache_dir: str | Path | None = None,
        batch_size: int | str = "auto",
        device: str = "auto",
        precision: str = "auto",
        on_bad_input: str = "fail",
    ) -> None:
        self.backbone = backbone
        self.layers = layers
        self.pooling = pooling
        self.image_size = image_size
        self.resize = resize
        self.cache_dir = cache_dir
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.on_bad_input = on_bad_input

    def fit(self, X: Any, y: Any = None) -> Self:
        """Settle the layers; a frozen backbone learns nothing from X."""
        self.layer_slices_ = slices_of(self._cache().layers)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embed pictures: float32 of shape (n_samples, sum of widths)."""
        check_is_fitted(self)
        fetched = self._fetch(X)
        if fetched.usable.all():
            return fetched.X
        full = np.full((len(fetched.usable), fetched.X.shape[1]), np.nan, np.float32)
        full[fetched.usable] = fetched.X
        return full

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name every column ``layer:index``."""
        check_is_fitted(self)
        names = [
            f"{name}:{index}"
            for name, own in self.layer_slices_.items()
            for index in range(own.stop - own.start)
        ]
        return np.array(names, dtype=object)
