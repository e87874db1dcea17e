"""Depthwise convolutions with quick gradients: the same numbers as torch's own."""

import pytest
import torch
from torch.nn import functional

from pipeline.backbones import depthwise
from pipeline.backbones.depthwise import QuickDepthwise


@pytest.fixture
def counted(monkeypatch):
    """Count how often the quick way is taken."""
    calls = []
    own = depthwise._of_weight
    monkeypatch.setattr(depthwise, "_of_weight", lambda *a: calls.append(1) or own(*a))
    return calls


def both(channels, size, kernel, *, bias=False, dtype=torch.float64, **options):
    """Value and gradients by torch, and by the quick way."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    tensors = [drawn(3, channels, *size), drawn(channels, 1, *kernel)]
    tensors += [drawn(channels)] if bias else []

    def ran():
        value = functional.conv2d(*tensors, groups=channels, **options)
        weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
        return [value.detach(), *torch.autograd.grad((value * weights).sum(), tensors)]

    plain = ran()
    with QuickDepthwise():
        return plain, ran()


@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        ((4, 4), (5, 5), {"padding": 2}),
        ((7, 5), (5, 5), {"padding": (2, 1)}),
        ((8, 8), (5, 5), {"padding": 2, "stride": 2}),
        ((9, 7), (7, 7), {"padding": 3, "stride": (2, 1)}),
        ((10, 10), (4, 4), {"dilation": 2}),
        ((11, 11), (5, 5), {"stride": 2}),
        ((6, 6), (5, 3), {"padding": (2, 1), "bias": True}),
    ],
)
def test_values_and_gradients_are_those_of_torch(counted, size, kernel, options):
    plain, quick = both(6, size, kernel, **options)
    assert counted == [1]
    for ours, theirs in zip(quick, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [((8, 8), (3, 3), {"padding": 1}), ((40, 40), (5, 5), {"padding": 2})],
    ids=["a small kernel", "a large map"],
)
def test_what_torch_does_quickly_is_left_to_it(counted, size, kernel, options):
    plain, quick = both(4, size, kernel, **options)
    assert counted == []
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(quick, plain, strict=True))


def test_a_convolution_that_is_not_depthwise_is_left_alone(counted):
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 4, 5, 5, requires_grad=True)
    with QuickDepthwise():
        functional.conv2d(x, weight, padding="same").sum().backward()
    assert counted == []


def test_frozen_weights_and_inference_are_left_alone(counted):
    x, weight = torch.randn(2, 4, 6, 6, requires_grad=True), torch.randn(4, 1, 5, 5)
    with QuickDepthwise():
        functional.conv2d(x, weight, groups=4).sum().backward()
    assert counted == []


def test_it_learns_in_half_precision_too(counted):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 6, 6, generator=generator).requires_grad_()
    weight = torch.randn(4, 1, 5, 5, generator=generator).requires_grad_()

    def ran():
        with torch.autocast("cpu", torch.bfloat16):
            value = functional.conv2d(x, weight, padding=2, groups=4)
        return torch.autograd.grad(value.float().square().sum(), [x, weight])

    plain = ran()
    with QuickDepthwise():
        quick = ran()
    assert counted == [1]
    for ours, theirs in zip(quick, plain, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.01
