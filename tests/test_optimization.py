"""The training loop: what it finds, when it ends, what it keeps."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import OptionError
from pipeline.optimization import Group, optimize


def problem(n=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = X @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 3
    module = nn.Linear(3, 1, dtype=torch.float64)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module, X, y


def squared(module, X, y):
    return ((module(X) - y) ** 2).mean()


def alike(module, lr):
    return [Group([p for p in module.parameters() if p.requires_grad], lr)]


def whole(X, y):
    return lambda epoch: [(X, y)]


def test_least_squares_are_found():
    module, X, y = problem()
    done = optimize(
        module, whole(X, y), squared, lambda: float(squared(module, X, y)), alike(module, 0.3),
        steps_per_epoch=1, max_epochs=600, patience=600,
    )  # fmt: skip
    design = np.c_[X.numpy(), np.ones(len(X))]
    exact = np.linalg.lstsq(design, y.numpy(), rcond=None)[0].ravel()
    np.testing.assert_allclose(module.weight.detach().numpy().ravel(), exact[:3], atol=1e-3)
    np.testing.assert_allclose(float(module.bias.detach()), exact[3], atol=1e-3)
    assert done.losses[0] > 1000 * min(done.losses)


def test_the_best_weights_are_kept_and_patience_ends_it():
    module, X, y = problem()
    told, seen = iter([5.0, 3.0, 4.0, 4.0, 9.0]), []

    def validate():
        seen.append(module.weight.detach().clone())
        return next(told)

    done = optimize(
        module, whole(X, y), squared, validate, alike(module, 0.1),
        steps_per_epoch=1, max_epochs=100, patience=3,
    )  # fmt: skip
    assert (done.epochs, done.best_epoch, done.losses) == (5, 2, (5.0, 3.0, 4.0, 4.0, 9.0))
    assert torch.equal(module.weight, seen[1])
    assert not torch.equal(seen[4], seen[1])


def test_the_rate_rises_and_falls_over_all_epochs_and_frozen_parameters_stay():
    module, X, y = problem()
    module.bias.requires_grad_(False)
    steps = []

    def watched(own, *batch):
        steps.append(own.weight.detach().clone())
        return squared(own, *batch)

    optimize(
        module, whole(X, y), watched, lambda: 0.0, alike(module, 0.01),
        steps_per_epoch=1, max_epochs=40, patience=100,
    )  # fmt: skip
    sizes = [float((b - a).norm()) for a, b in itertools.pairwise(steps)]
    assert max(sizes[5:20]) > 3 * sizes[0]
    assert sizes[-1] < 0.2 * max(sizes)
    assert float(module.bias) == 0


def test_dropout_acts_in_training_and_not_in_validation():
    module, X, y = problem()
    model = nn.Sequential(nn.Dropout(0.5), module)
    modes = []

    def watched(own, *batch):
        modes.append(("loss", own.training))
        return squared(own, *batch)

    def validate():
        modes.append(("validate", model.training, torch.is_inference_mode_enabled()))
        return 0.0

    optimize(
        model, whole(X, y), watched, validate, alike(model, 0.1), steps_per_epoch=1, max_epochs=2
    )
    assert modes == [("loss", True), ("validate", False, True)] * 2


def test_a_steep_loss_is_clipped():
    module, X, y = problem()
    norms = []

    def steep(own, *batch):
        return 1e6 * squared(own, *batch)

    def validate():
        norms.append(float(torch.cat([p.grad.ravel() for p in module.parameters()]).norm()))
        return 0.0

    optimize(
        module, whole(X, y), steep, validate, alike(module, 0.1), steps_per_epoch=1, max_epochs=3
    )
    np.testing.assert_allclose(norms, 1, rtol=1e-4)


def test_a_loss_that_is_no_number_is_said():
    module, X, y = problem()
    with pytest.raises(OptionError) as caught:
        optimize(
            module, whole(X, y), squared, lambda: float("nan"), alike(module, 0.1),
            steps_per_epoch=1, max_epochs=3,
        )  # fmt: skip
    assert str(caught.value) == (
        "training diverged: the loss is nan after epoch 1. Lower the learning rate, which is 0.1."
    )
