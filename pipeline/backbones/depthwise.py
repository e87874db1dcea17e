"""Depthwise convolutions whose weights learn quickly on a CPU.

oneDNN, which torch calls, is quick at their outputs and at the gradients of their inputs, but
takes ten times as long for the gradients of kernels larger than 3 x 3. On small maps these are
products of matrices: what comes in at one place, times what comes back at another, is summed
over the batch for all pairs of places at once, and each weight adds up the pairs at its distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["QuickDepthwise"]

_LEAST_KERNEL = 10
"""Weights of a kernel: with those of 3 x 3 torch is quick itself."""
_MOST_PAIRS = 10_000
"""Of a place that comes in and one that goes out: beyond, products are more work than they save."""


class QuickDepthwise(TorchFunctionMode):
    """While it is open, depthwise convolutions of large kernels on small maps learn quickly.

    Values and gradients are those of torch, to rounding.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Take the place of ``torch.conv2d`` where it applies."""
        found = _convolved(*args, **(kwargs or {})) if func is torch.conv2d else None
        return func(*args, **(kwargs or {})) if found is None else found


def _convolved(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """Convolve; None where torch is as quick by itself, or does something else."""
    if (
        not groups == len(weight) == input.shape[1]
        or not (weight.requires_grad and torch.is_grad_enabled())
        or input.device.type != "cpu"
        or isinstance(padding, str)
        or weight.shape[2] * weight.shape[3] < _LEAST_KERNEL
        or (input.shape[2] * input.shape[3]) ** 2 > _MOST_PAIRS * math.prod(_pair(stride))
    ):
        return None
    pairs = (_pair(stride), _pair(padding), _pair(dilation))
    found: Tensor = _Depthwise.apply(input, weight, *pairs)
    return found if bias is None else found + bias.view(1, -1, 1, 1)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, *pairs: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.pairs = pairs
        stride, padding, dilation = pairs
        return functional.conv2d(input, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        # Under autocast the output, and so its gradient, is of another type than what came in.
        input, weight = (one.to(gradient.dtype) for one in ctx.saved_tensors)
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = torch.ops.aten.convolution_backward(
                gradient, input, weight, None, *ctx.pairs, False, (0, 0), len(weight),
                (True, False, False),
            )[0]  # fmt: skip
        return of_input, _of_weight(input, gradient, weight, ctx.pairs), None, None, None


def _of_weight(input: Tensor, gradient: Tensor, weight: Tensor, pairs: Any) -> Tensor:
    coming, going = (one.permute(1, 2, 3, 0).flatten(1, 2) for one in (input, gradient))
    products = torch.bmm(going, coming.transpose(1, 2))  # (channels, places out, places in)
    adding = _adding(
        tuple(input.shape[2:]), tuple(gradient.shape[2:]), tuple(weight.shape[2:]), *pairs
    )
    return (products.flatten(1) @ adding.to(products.dtype)).view_as(weight)


@cache
def _adding(
    inner: tuple[int, int], outer: tuple[int, int], kernel: tuple[int, int],
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Say which pairs of places each weight of a kernel adds up: (pairs, weights), 0 or 1."""
    axes = []
    for axis in range(2):
        out = torch.arange(outer[axis]).view(-1, 1, 1)
        come = torch.arange(inner[axis]).view(1, -1, 1)
        tap = torch.arange(kernel[axis]).view(1, 1, -1)
        axes.append(come == out * stride[axis] - padding[axis] + tap * dilation[axis])
    down, right = (axis.float() for axis in axes)
    every = torch.einsum("yui,xvj->yxuvij", down, right)
    return every.reshape(outer[0] * outer[1] * inner[0] * inner[1], kernel[0] * kernel[1])
