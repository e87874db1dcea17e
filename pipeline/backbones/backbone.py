"""Backbone: a frozen network with a name, its layers and its preprocessing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pipeline.backbones.checkpoint import fill, state_of, weights_digest
from pipeline.backbones.device import resolve_device, resolve_precision
from pipeline.backbones.engines import Engine, make_engine, prepared_engine
from pipeline.backbones.layer import Layer, choose_layers
from pipeline.backbones.network import OUTPUT, Network, layers_of
from pipeline.backbones.prepared import PreparedGraph
from pipeline.backbones.weights import MODULE
from pipeline.errors import InputError
from pipeline.spec import EmbeddingSpec, Precision, StoreDtype

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

__all__ = ["Backbone"]


class Backbone:
    """A frozen network that turns pictures into the vectors of many layers.

    Parameters
    ----------
    name : str
        Its name in caches and models.
    network : Network
        The module with its taps and its preprocessing.
    pooling : str
        ``"auto"`` or a key of `pipeline.pooling.POOLINGS`.

    Attributes
    ----------
    modality : str
        What it reads: ``"image"``.
    layers : dict of str to Layer
        Every tap, bottom to top.
    preprocess : Preprocessing
        From picture to input.
    weights_digest : str
        Hex digest of the state dict, without the classifier.

    Examples
    --------
    >>> import numpy as np
    >>> from pipeline.backbones import load_backbone
    >>> backbone = load_backbone("timm/test_resnet", weights=None)
    >>> list(backbone.layers)
    ['layer1', 'layer2', 'layer3', 'layer4', 'features']
    >>> backbone.embed(np.zeros((2, 160, 160, 3), np.uint8)).shape
    (2, 464)
    """

    modality = "image"

    def __init__(self, name: str, network: Network, pooling: str = "auto") -> None:
        self.name = name
        self.network = network
        self.preprocess = network.preprocess
        self.pooling, self.layers = layers_of(network, pooling)
        self._engines: dict[tuple[tuple[str, ...], str, str], Engine] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the engines behind: they are made again where the backbone arrives."""
        return self.__dict__ | {"_engines": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Give itself: it is frozen, and clones of an estimator shall share one network."""
        return self

    def __repr__(self) -> str:
        height, width = self.preprocess.image_size
        return f"<Backbone {self.name}: {len(self.layers)} layers, {height} x {width} px>"

    @cached_property
    def weights_digest(self) -> str:
        """Hex digest of the state dict: names, dtypes, shapes and values."""
        return weights_digest(self.network.module)

    def blocks(self) -> tuple[str, ...]:
        """Name the modules that can be trained one by one from the top, bottom to top.

        They are those of the taps: stages of a convolutional network, blocks of a
        transformer. What follows the last belongs to it, what comes before the first to that.

        Examples
        --------
        >>> from pipeline.backbones import load_backbone
        >>> load_backbone("timm/test_vit", weights=None).blocks()
        ('blocks.0', 'blocks.1', 'blocks.2', 'blocks.3', 'blocks.4', 'blocks.5')
        """
        modules = dict.fromkeys(layer.module for layer in self.layers.values())
        return tuple(name for name in modules if name != OUTPUT)

    def tapped_also(self, layer: Layer) -> Self:
        """Give the same network with one more layer, right above those of its module."""
        own = copy.copy(self)
        own.layers, own._engines = {}, {}
        last = [name for name, tap in self.layers.items() if tap.module == layer.module][-1]
        for name, tap in self.layers.items():
            own.layers[name] = tap
            if name == last:
                own.layers[layer.name] = layer
        return own

    def with_module(self, module: nn.Module) -> Backbone:
        """Give a backbone of the same architecture with the weights of a tuned copy."""
        network = replace(self.network, module=module, weights=MODULE)
        return Backbone(self.name, network, self.pooling)

    def filled(self, state: Mapping[str, NDArray[Any]]) -> Backbone:
        """Give a backbone of the same architecture with the weights that `state` gave.

        Raises
        ------
        BackboneError
            When they are of another architecture.
        """
        module = copy.deepcopy(self.network.module)
        fill(module, state, f"the state given for {self.name}")
        return self.with_module(module)

    def state(self) -> dict[str, NDArray[Any]]:
        """Give the state dict as arrays: what `load_backbone` takes as ``weights``."""
        return state_of(self.network.module)

    def spec(
        self,
        *,
        precision: Precision = "float32",
        decoder: str = "torchcodec",
        store_dtype: StoreDtype = "float16",
    ) -> EmbeddingSpec:
        """Give everything that changes a number of this backbone's embeddings."""
        return EmbeddingSpec(
            backbone=self.name,
            weights_digest=self.weights_digest,
            preprocess=self.preprocess,
            pooling=self.pooling,
            precision=precision,
            decoder=decoder,
            store_dtype=store_dtype,
            modality=self.modality,
        )

    def engine(
        self,
        layers: Sequence[str] | str = "all",
        *,
        device: str = "auto",
        precision: str = "auto",
        forward_cache: bool = True,
        n_images: int = 0,
    ) -> Engine:
        """Prepare the network for these layers on a device; made once, then kept.

        Parameters
        ----------
        layers : sequence of str, "auto" or "all"
            Which taps, packed bottom to top.
        device : {"auto", "cpu", "cuda", "mps"}
        precision : {"auto", "float32", "bfloat16", "float16"}
        forward_cache : bool
            Whether the prepared graph is looked for, and kept, in the user's cache folder.
        n_images : int
            How many pictures are to come: compiling pays for many.
        """
        names = choose_layers(self.layers, layers, self.name)
        device = resolve_device(device)
        resolved = resolve_precision(precision, device)
        key = (names, device, resolved)
        if key not in self._engines:
            chosen = [self.layers[name] for name in names]
            prepared = (
                PreparedGraph(self.weights_digest, self.preprocess, self.pooling, names, resolved)
                if forward_cache and not self.network.own
                else None
            )
            found = None if prepared is None else prepared_engine(prepared, device)
            self._engines[key] = found or make_engine(
                self.network,
                chosen,
                device=device,
                precision=resolved,
                prepared=prepared,
                n_images=n_images,
            )
        return self._engines[key]

    def embed(
        self,
        batch: NDArray[np.uint8],
        layers: Sequence[str] | str = "all",
        *,
        device: str = "auto",
        precision: str = "float32",
    ) -> NDArray[np.float32]:
        """Embed a batch of prepared pictures.

        Parameters
        ----------
        batch : uint8 array of shape (batch, height, width, 3)
            Resized to ``preprocess.image_size``, RGB.

        Returns
        -------
        float32 array of shape (batch, sum of widths)
            The layers side by side, bottom to top.

        Raises
        ------
        InputError
            When the batch has another shape or dtype.
        """
        shape = (*self.preprocess.image_size, 3)
        if batch.shape[1:] != shape or batch.dtype != "uint8":
            raise InputError(
                f"a batch for {self.name} must be uint8 of shape (batch, {shape[0]}, {shape[1]}, "
                f"3), but this one is {batch.dtype} of shape {batch.shape}. Resize its pictures "
                "as backbone.preprocess says, and do not normalise them."
            )
        return self.engine(layers, device=device, precision=precision).embed(batch)
