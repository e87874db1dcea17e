"""The training loop: what it finds, when it ends, what it keeps."""

import io
import itertools
import logging

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


def halves(X, y):
    """Two batches an epoch, in an order that the epoch decides."""

    def batches(epoch):
        order = torch.randperm(len(X), generator=torch.Generator().manual_seed(epoch))
        return [(X[half], y[half]) for half in order.chunk(2)]

    return batches


def falling():
    """Validation losses of which the last is always the best."""
    counter = itertools.count()
    return lambda: -float(next(counter))


def flat(module, X, y):
    """A loss without slope."""
    return sum(0 * own.sum() for own in module.parameters())


def rates(lr, steps):
    """One cycle by hand: from a 25th up for three tenths of the steps, then down to nothing."""
    top = 0.3 * steps - 1

    def between(start, stop, share):
        return stop + (start - stop) / 2 * (1 + np.cos(np.pi * share))

    return [
        between(lr / 25, lr, step / top)
        if step <= top
        else between(lr, lr / 25 / 1e4, (step - top) / (steps - 1 - top))
        for step in range(steps)
    ]


@pytest.mark.parametrize(("bias", "weight"), [(0.001, 0.1), (0.1, 0.001)])
def test_every_group_has_a_rate_of_its_own(bias, weight):
    module, X, y = problem()
    groups = [Group([module.bias], bias), Group([module.weight], weight)]
    done = optimize(
        module, whole(X, y), squared, lambda: 0.0, groups, steps_per_epoch=10, max_epochs=1
    )
    # The first step of Adam is as long as the rate, whatever the gradient.
    np.testing.assert_allclose(module.bias.abs().detach(), bias / 25, rtol=1e-5)
    np.testing.assert_allclose(module.weight.abs().detach(), weight / 25, rtol=1e-5)
    assert done.log[0].lr == pytest.approx(rates(bias, 10)[1])


def test_without_a_gradient_weights_decay_to_zero_or_are_pulled_to_their_start():
    module, X, y = problem()
    nn.init.constant_(module.weight, 2.0)
    nn.init.constant_(module.bias, 3.0)
    seen = []

    def moved_once(epoch):
        if epoch == 2:
            with torch.no_grad():
                module.bias.add_(1.0)
        for _ in range(2):
            yield X, y
            seen.append((module.weight.detach().clone(), float(module.bias.detach())))

    groups = [Group([module.weight], 0.1, weight_decay=0.5), Group([module.bias], 0.2, pull=2.0)]
    optimize(
        module, moved_once, flat, falling(), groups, steps_per_epoch=2, max_epochs=4, patience=9
    )
    weight, away = 2.0, 0.0
    for step, (found, bias) in enumerate(seen):
        away += 1.0 if step == 2 else 0.0
        weight *= 1 - 0.5 * rates(0.1, 8)[step]
        away *= 1 - 2.0 * rates(0.2, 8)[step]
        np.testing.assert_allclose(found, weight, rtol=1e-12)
        assert bias == pytest.approx(3.0 + away, rel=1e-12)
    assert 0 < away < 0.5


def test_a_pull_of_more_than_the_whole_way_goes_no_further_than_the_start():
    module, X, y = problem()
    done = optimize(
        module, halves(X, y), squared, falling(), [Group([module.weight], 0.5, pull=1e6)],
        steps_per_epoch=2, max_epochs=3,
    )  # fmt: skip
    assert done.best_epoch == 3
    np.testing.assert_allclose(module.weight.detach(), 0.0, atol=1e-12)


def test_groups_join_in_their_epoch_and_stay_bit_for_bit_until_then():
    module, X, y = problem()
    nn.init.constant_(module.weight, 0.7)
    seen = []

    def validate():
        free = (module.bias.requires_grad, module.weight.requires_grad)
        seen.append((free, module.weight.detach().clone(), module.bias.detach().clone()))
        return -float(len(seen))

    groups = [
        Group([module.bias], 0.1, pull=0.1),
        Group([module.weight], 0.1, weight_decay=0.1, pull=0.1, first_epoch=3),
    ]
    optimize(
        module, halves(X, y), squared, validate, groups,
        steps_per_epoch=2, max_epochs=4, average=0.5,
    )  # fmt: skip
    assert [free for free, *_ in seen] == [(True, False)] * 2 + [(True, True)] * 2
    for _, weight, bias in seen[:2]:
        assert torch.equal(weight, torch.full_like(weight, 0.7))
        assert bias != 0
    assert not torch.equal(seen[2][1], seen[1][1])


def test_the_average_of_the_weights_is_judged_and_kept_while_training_goes_on_without_it():
    module, X, y = problem()
    told, judged, means = iter([3.0, 1.0, 2.0]), [], []
    own = [one.detach().clone() for one in module.parameters()]
    mean, before = [one.clone() for one in own], own

    def batches(epoch):
        nonlocal mean, before
        for half in (slice(0, 100), slice(100, 200)):
            # What was lent to the validation has been given back.
            assert all(map(torch.equal, module.parameters(), before))
            yield X[half], y[half]
            before = [one.detach().clone() for one in module.parameters()]
            mean = [0.9 * old + 0.1 * new for old, new in zip(mean, before, strict=True)]
        means.append(mean)

    def validate():
        judged.append([one.detach().clone() for one in module.parameters()])
        return next(told)

    done = optimize(
        module, batches, squared, validate, alike(module, 0.1),
        steps_per_epoch=2, max_epochs=3, average=0.9,
    )  # fmt: skip
    for found, expected in zip(judged, means, strict=True):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
    assert done.best_epoch == 2
    assert all(map(torch.equal, module.parameters(), judged[1]))
    assert not torch.equal(judged[1][0], before[0])


# Memory


def added(module, X, y):
    return ((module(X) - y) ** 2).sum() / 100


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


def cramped(most, error=NO_MEMORY):
    """A loss for which memory runs out beyond so many rows."""

    def loss(module, X, y):
        found = added(module, X, y)
        if len(X) > most:
            raise error
        return found

    return loss


def gradients(loss, n=200):
    """Gradients after every epoch, and its losses."""
    module, X, y = problem(n)
    seen = []

    def validate():
        seen.append(torch.cat([one.grad.ravel() for one in module.parameters()]))
        return 0.0

    done = optimize(
        module, halves(X, y), loss, validate, alike(module, 0.1), steps_per_epoch=2,
        max_epochs=3, clip=1e9,
    )  # fmt: skip
    return torch.stack(seen), [epoch.loss for epoch in done.log]


@pytest.mark.parametrize(
    "error",
    [
        NO_MEMORY,
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_a_batch_for_which_memory_runs_out_goes_through_in_pieces(caplog, error):
    caplog.set_level(logging.WARNING, logger="pipeline.optimization")
    found, losses = gradients(cramped(30, error))
    assert [record.getMessage() for record in caplog.records] == [
        "memory ran out: batches of 100 go through in 2 pieces, their gradients added up",
        "memory ran out: batches of 100 go through in 4 pieces, their gradients added up",
    ]
    expected, whole = gradients(added)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert losses == pytest.approx(whole, rel=1e-10)


def test_gradients_of_pieces_that_fitted_before_memory_ran_out_are_not_counted_twice():
    calls = []

    def once(module, X, y):
        calls.append(len(X))
        if calls in ([100], [100, 50, 50]):
            raise torch.OutOfMemoryError
        return added(module, X, y)

    found, _ = gradients(once)
    assert calls[:7] == [100, 50, 50, 25, 25, 25, 25]
    torch.testing.assert_close(found, gradients(added)[0], rtol=1e-10, atol=1e-12)


def test_pieces_need_not_be_equal():
    found, _ = gradients(cramped(4), n=14)  # 4 and 3
    torch.testing.assert_close(found, gradients(added, n=14)[0], rtol=1e-10, atol=1e-12)


def test_no_memory_for_a_single_row_is_an_error_and_so_is_any_other():
    with pytest.raises(torch.OutOfMemoryError):
        gradients(cramped(0))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        gradients(cramped(30, RuntimeError("shapes do not match")))


# Stopping, and going on


def interrupted(call):
    """A loss during which somebody presses Ctrl-C."""
    calls = itertools.count(1)

    def loss(module, X, y):
        if next(calls) == call:
            raise KeyboardInterrupt
        return squared(module, X, y)

    return loss


def test_ctrl_c_in_the_third_epoch_keeps_the_best_of_two():
    module, X, y = problem()
    told, seen = iter([1.0, 2.0]), []

    def validate():
        seen.append(module.weight.detach().clone())
        return next(told)

    done = optimize(
        module, halves(X, y), interrupted(6), validate, alike(module, 0.1),
        steps_per_epoch=2, max_epochs=9, stoppable=True, average=0.5,
    )  # fmt: skip
    assert (done.epochs, done.best_epoch, done.interrupted) == (2, 1, True)
    assert torch.equal(module.weight, seen[0])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(("call", "stoppable"), [(6, False), (2, True)])
def test_ctrl_c_ends_everything_where_nothing_can_be_kept(call, stoppable):
    module, X, y = problem()
    with pytest.raises(KeyboardInterrupt):
        optimize(
            module, halves(X, y), interrupted(call), falling(), alike(module, 0.1),
            steps_per_epoch=2, max_epochs=9, stoppable=stoppable,
        )  # fmt: skip


def resumable(told, state=None, until=None):
    """A training with all that has a memory; its states as files, its log and weights."""
    module, X, y = problem()
    nn.init.constant_(module.weight, 0.5)
    groups = [
        Group([module.bias], 0.05, weight_decay=0.1),
        Group([module.weight], 0.1, pull=0.1, first_epoch=2),
    ]
    files, losses = [], iter(told)

    def on_epoch(epoch, give):
        file = io.BytesIO()
        torch.save(give(), file)
        files.append(file)
        if epoch.number == until:
            raise KeyboardInterrupt

    done = optimize(
        module, halves(X, y), squared, lambda: next(losses), groups, steps_per_epoch=2,
        max_epochs=6, patience=3, average=0.8, state=state, on_epoch=on_epoch,
    )  # fmt: skip
    log = [(epoch.number, epoch.loss, epoch.validation_loss, epoch.lr) for epoch in done.log]
    return files, log, done.best_epoch, [one.detach() for one in module.parameters()]


TOLD = [4.0, 3.0, 3.5, 1.0, 2.0, 1.5]


@pytest.mark.parametrize("epoch", [1, 2, 3, 5])
def test_from_a_state_it_goes_on_as_if_it_had_never_ended(epoch):
    files, log, best, weights = resumable(TOLD)
    assert (len(log), best) == (6, 4)
    files[epoch - 1].seek(0)
    state = torch.load(files[epoch - 1], weights_only=True)
    later, again, best_again, others = resumable(TOLD[epoch:], state)
    assert len(later) == 6 - epoch
    assert (again, best_again) == (log, best)
    assert all(map(torch.equal, weights, others))


def test_a_state_does_not_change_while_training_goes_on():
    states = []
    module, X, y = problem()
    optimize(
        module, halves(X, y), squared, falling(), alike(module, 0.1), steps_per_epoch=2,
        max_epochs=3, average=0.5, on_epoch=lambda epoch, give: states.append(give()),
    )  # fmt: skip
    assert [len(state["log"]) for state in states] == [1, 2, 3]
    assert [state["best_epoch"] for state in states] == [1, 2, 3]
    for name in ("parameters", "means", "best"):
        assert not torch.equal(states[0][name][0], states[1][name][0])


def test_a_training_that_had_ended_is_not_gone_on_with():
    files, log, best, weights = resumable([1.0, 2.0, 2.0, 2.0])
    assert (len(log), best) == (4, 1)
    files[-1].seek(0)
    later, again, _, others = resumable([], torch.load(files[-1], weights_only=True))
    assert (later, again) == ([], log)
    assert all(map(torch.equal, weights, others))


@pytest.mark.parametrize("asked", [True, False])
def test_losses_are_computed_in_bfloat16_where_that_is_asked_for(asked):
    module, X, y = problem()
    module, X, y = module.float(), X.float(), y.float()
    seen = []

    def watched(own, X, y):
        seen.append(own(X).dtype)
        return squared(own, X, y)

    def validate():
        seen.append(module(X).dtype)
        return 0.0

    optimize(
        module, whole(X, y), watched, validate, alike(module, 0.1), steps_per_epoch=1,
        max_epochs=1, bfloat16=asked,
    )  # fmt: skip
    assert seen == [torch.bfloat16 if asked else torch.float32, torch.float32]
    assert module.weight.dtype == torch.float32


def test_the_log_says_what_each_epoch_was():
    module, X, y = problem()
    seen = []

    def watched(own, *batch):
        found = squared(own, *batch)
        seen.append(float(found.detach()))
        return found

    heard = []
    done = optimize(
        module, halves(X, y), watched, falling(), alike(module, 0.1), steps_per_epoch=2,
        max_epochs=3, on_epoch=lambda epoch, state: heard.append(epoch),
    )  # fmt: skip
    assert list(done.log) == heard
    assert [epoch.number for epoch in done.log] == [1, 2, 3]
    means = np.array(seen).reshape(3, 2).mean(1)
    np.testing.assert_allclose([epoch.loss for epoch in done.log], means, rtol=1e-12)
    assert done.losses == (0.0, -1.0, -2.0)
    expected = rates(0.1, 6)
    np.testing.assert_allclose(
        [epoch.lr for epoch in done.log[:2]], [expected[2], expected[4]], rtol=1e-9
    )
    assert all(epoch.seconds > 0 for epoch in done.log)
