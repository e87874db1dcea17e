"""Cut: a network whose top blocks can be trained, alone or with all below them running too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.backbones.depthwise import QuickDepthwise
from pipeline.backbones.graph import EmbeddingGraph
from pipeline.backbones.layer import Layer
from pipeline.backbones.network import tap_shapes, tapped
from pipeline.errors import OptionError

if TYPE_CHECKING:
    from pipeline.backbones.backbone import Backbone

__all__ = ["Cut"]


class Cut(EmbeddingGraph):
    """The layers of a backbone, the blocks above a boundary free to be trained.

    A parameter belongs to the lowest block whose output depends on it, as the gradients say;
    so nothing that the boundary depends on is ever trained. The network stays in eval mode:
    statistics of batch normalisation are those it came with.

    Parameters
    ----------
    backbone : Backbone
        Copied, so that it stays as it is.
    layers : sequence of str
        The layers to give, bottom to top; nothing above the last of them is trained or run.
    n_blocks : int
        How many blocks are trained, counted from the highest that these layers need.
    device : str

    Attributes
    ----------
    trained : dict of str to int
        Every parameter that is trained, and how many blocks stand above its own.
    entrance : Layer or None
        The boundary as a layer, its values as they are; None where all blocks are trained.
    entrance_shape : tuple of int
        Of the values of one picture there.
    below, above : tuple of Layer
        The layers up to the boundary, and those beyond.

    Raises
    ------
    OptionError
        When there are not so many blocks, or none at all.
    """

    def __init__(
        self, backbone: Backbone, layers: Sequence[str], n_blocks: int, device: str = "cpu"
    ) -> None:
        chosen = [backbone.layers[name] for name in layers]
        super().__init__(backbone.network, chosen, device)
        self._preprocess = backbone.preprocess
        blocks = _blocks_below(backbone, chosen[-1], n_blocks)
        self._boundary = blocks[-n_blocks - 1] if n_blocks < len(blocks) else None
        frozen = blocks[:-n_blocks]
        self.below = tuple(layer for layer in chosen if layer.module in frozen)
        self.above = tuple(layer for layer in chosen if layer.module not in frozen)
        self.entrance, self.entrance_shape = self._entrance(backbone)
        depths = {name: len(blocks) - 1 - place for name, place in self._owners(blocks).items()}
        self.trained = {name: depth for name, depth in depths.items() if depth < n_blocks}
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name in self.trained)

    def _entrance(self, backbone: Backbone) -> tuple[Layer | None, tuple[int, ...]]:
        if self._boundary is None:
            return None, ()
        tap = next(own for own in backbone.layers.values() if own.module == self._boundary)
        size = backbone.preprocess.image_size
        shape = tap_shapes(self.module, [self._boundary], size)[self._boundary][1:]
        name = f"{self._boundary}.whole"
        return replace(tap, name=name, width=math.prod(shape), pooling=""), shape

    def _owners(self, blocks: Sequence[str]) -> dict[str, int]:
        """Give the place of the lowest block whose output depends on each parameter."""
        names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        self.module.requires_grad_(True)
        with torch.enable_grad(), tapped(self.module, blocks) as outputs:
            whole = self.packed(self._black(), self.layers)
        owners: dict[str, int] = {}
        seen: set[Any] = set()
        for place, output in enumerate([*(outputs[name] for name in blocks), whole]):
            for variable in _leaves(output, seen):
                if id(variable) in names:
                    owners[names[id(variable)]] = min(place, len(blocks) - 1)
        return owners

    @property
    def of_tokens(self) -> bool:
        """Whether the trained blocks pass tokens on, as those of transformers do."""
        return any(layer.axes in ("BTD", "BHWC") for layer in self.above)

    def forward(self, pictures: Tensor) -> Tensor:
        """Run everything, and let gradients flow above the boundary only.

        Parameters
        ----------
        pictures : uint8 Tensor of shape (batch, height, width, 3)

        Returns
        -------
        float32 Tensor of shape (batch, sum of widths)
        """
        with self._entering(), QuickDepthwise():
            return self.packed(pictures, self.layers)

    def resume(self, entering: Tensor, below: Tensor) -> Tensor:
        """Run the trained blocks alone.

        Parameters
        ----------
        entering : Tensor of shape (batch, *entrance_shape)
            What comes out at the boundary.
        below : float32 Tensor of shape (batch, sum of widths of the layers below)

        Returns
        -------
        float32 Tensor of shape (batch, sum of widths)
            What `forward` gives for the same pictures.
        """
        # What the network does between its modules is done too, with what those below gave for
        # one black picture; its result is not used.
        with self._standing_in(entering), QuickDepthwise():
            above = self.packed(self._black(), self.above)
        return torch.cat([below, above], dim=1)

    def resumes(self) -> bool:
        """Whether the trained blocks need nothing but what comes out at the boundary."""
        if self._boundary is None:
            return False
        size = self._preprocess.image_size
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randint(256, (2, *size, 3), dtype=torch.uint8, generator=generator)
        pictures = pictures.to(self.shift.device)
        with torch.no_grad(), tapped(self.module, [self._boundary]) as outputs:
            whole = self(pictures)
            width = sum(layer.width for layer in self.below)
            try:
                resumed = self.resume(outputs[self._boundary], whole[:, :width])
            except (RuntimeError, ValueError, TypeError, IndexError):  # shapes of another batch
                return False
        return torch.allclose(whole, resumed, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))

    def _black(self) -> Tensor:
        size = self._preprocess.image_size
        return torch.zeros((1, *size, 3), dtype=torch.uint8, device=self.shift.device)

    @contextmanager
    def _entering(self) -> Iterator[None]:
        """Let gradients begin at the boundary."""
        if self._boundary is None:
            yield
            return
        asked = torch.is_grad_enabled()

        def enter(*_: Any) -> None:
            torch.set_grad_enabled(asked)

        handle = self.module.get_submodule(self._boundary).register_forward_hook(enter)
        try:
            with torch.no_grad():
                yield
        finally:
            handle.remove()

    @contextmanager
    def _standing_in(self, entering: Tensor) -> Iterator[None]:
        """Let every module up to the boundary give something without running."""
        asked = torch.is_grad_enabled()
        boundary = self.module.get_submodule(str(self._boundary))

        def enter(*_: Any, **__: Any) -> Tensor:
            torch.set_grad_enabled(asked)
            return entering

        given = {module: _giving(output) for module, output in self._given_by_those_below.items()}
        with _instead({**given, boundary: enter}), torch.no_grad():
            yield

    @cached_property
    def _given_by_those_below(self) -> dict[nn.Module, Any]:
        """Keep what the outermost modules below the boundary give for a black picture."""
        path = str(self._boundary).split(".")
        around = {".".join(path[:depth]) for depth in range(len(path))}
        outermost = [
            child
            for name in around
            for own, child in self.module.get_submodule(name).named_children()
            if f"{name}.{own}".lstrip(".") not in around
        ]
        boundary, entered = self.module.get_submodule(str(self._boundary)), False
        given: dict[nn.Module, Any] = {}

        def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal entered
            if entered:
                given.pop(module, None)  # it is needed above, too
            else:
                given.setdefault(module, output)
            entered |= module is boundary

        handles = [module.register_forward_hook(keep) for module in outermost]
        try:
            with torch.no_grad():
                self.packed(self._black(), self.layers)
        finally:
            for handle in handles:
                handle.remove()
        return given


@contextmanager
def _instead(stand_ins: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let modules run something else for a while."""
    before = {module: vars(module).get("forward") for module in stand_ins}
    try:
        for module, stand_in in stand_ins.items():
            module.forward = stand_in
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del module.forward  # the method of its class shows again
            else:
                module.forward = own


def _giving(output: Any) -> Callable[..., Any]:
    return lambda *_, **__: output


def _leaves(output: Tensor, seen: set[Any]) -> Iterator[Tensor]:
    """Walk down from an output to what it was made of, past what has been seen before."""
    pending = [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        pending += [function for function, _ in node.next_functions]


def _blocks_below(backbone: Backbone, last: Layer, n_blocks: int) -> tuple[str, ...]:
    """List the blocks that the last layer needs, if there are enough of them."""
    blocks = backbone.blocks()
    if not blocks:
        raise OptionError(
            f"the backbone {backbone.name} has no blocks: its only layer is its output, so nothing "
            "can be trained from the top. Take a backbone with several layers, or give a module of "
            "your own with layers=[...]."
        )
    if last.module in blocks:
        blocks = blocks[: blocks.index(last.module) + 1]
    if not 1 <= n_blocks <= len(blocks):
        raise OptionError(
            f"blocks is {n_blocks}, but {backbone.name} has {len(blocks)} up to the layer "
            f"{last.name}: {', '.join(blocks)}. Give a number from 1 to {len(blocks)}."
        )
    return blocks
