"""Stage 3 as a whole: honest, repeatable, never worse, and it goes on after a kill."""

import copy
import dataclasses
import json
import logging
import multiprocessing
import os
import signal
from unittest.mock import patch

import numpy as np
import pytest
import torch
from photo_album import skies
from PIL import Image
from small_world import environment
from tuning_world import TAPS, model_of, prepared, slants, stripe, striped, tiny

from pipeline.backbones import Cut, load_backbone
from pipeline.errors import BadInputError, OptionError
from pipeline.finetuning import finetune
from pipeline.finetuning import stage as stage_module
from pipeline.finetuning import training as training_module
from pipeline.finetuning.judging import Judge
from pipeline.samples import SampleSet

N = 120
QUICK = {"blocks": 2, "views": 1, "max_epochs": 5, "lr": 0.02}


@pytest.fixture(scope="module")
def samples():
    return striped(N)


@pytest.fixture(scope="module")
def model(samples):
    return model_of(samples)


@pytest.fixture(scope="module")
def tuned(model, samples):
    return finetune(model, samples, **QUICK)


def candidate(tuned):
    """Everything that a tuning gave, as numbers."""
    tuning = tuned.tuning
    return {
        "digest": tuning.candidate.weights_digest,
        "heads": [(one.coef.tobytes(), one.intercept.tobytes())
                  for one in tuning.candidate_heads.values()],
        "losses": curve(tuned),
        "shared": (tuning.kept, tuning.share, tuning.best_epoch, tuning.frozen_loss,
                   tuning.tuned_loss, tuning.validation_ids),
    }  # fmt: skip


def curve(tuned):
    return [(one.epoch.loss, one.epoch.validation_loss, one.epoch.lr, one.accuracy)
            for one in tuned.tuning.epochs]  # fmt: skip


def test_it_learns_what_the_frozen_network_does_not_see():
    samples = striped(240)
    model = model_of(samples)
    tuned = finetune(model, samples, blocks=3, views=1, max_epochs=12, lr=0.02)
    tuning = tuned.tuning
    assert tuning.kept == "tuned"
    assert tuning.tuned_loss < tuning.frozen_loss - 0.02
    assert tuned.weights_digest == tuning.candidate.weights_digest
    assert tuned.weights_digest != model.backbones["own"].weights_digest
    assert tuned.heads == tuning.candidate_heads
    assert (tuned.name, list(tuned.layers)) == ("own", TAPS)
    # Pictures that nobody has seen: the heads on the new network against the model.
    unseen = [stripe(row, kind) for row, kind in enumerate(slants(750)[600:], 600)]
    truth = np.array(slants(750)[600:])
    before = (model.predict(unseen) == truth).mean()
    head = tuned.heads["label"]
    vectors = tuned.embed(prepared(unseen, tuned.preprocess))
    after = (head.classes[head.scores(vectors).argmax(1)] == truth).mean()
    assert after > before + 0.02
    rows = dict(zip(tuning.split.ids, tuning.split.parts, strict=True))
    assert {name for name, part in rows.items() if part == "val"} == set(tuned.validation_ids)


# Honesty


def test_no_held_out_picture_is_ever_looked_at_and_no_validation_row_is_trained_on(
    model, samples, monkeypatch
):
    """Every picture that is decoded is written down, and every row of every training batch."""
    decoded, trained, judged = set(), [], []
    names = {samples.sources[row].tobytes(): name for row, name in enumerate(samples.ids)}
    real_view, real_batches = stage_module.View.of, training_module._Attempt.batches
    real_loss = training_module._Attempt.loss

    def looked(view, pixels, digest):
        decoded.add(names[pixels.tobytes()])
        return real_view(view, pixels, digest)

    def batches(steps, epoch):
        for batch in real_batches(steps, epoch):
            trained.append(batch[0].tolist())
            yield batch

    def loss(steps, network, own, shares, *inputs):
        judged.append(own.tolist())
        return real_loss(steps, network, own, shares, *inputs)

    monkeypatch.setattr(stage_module.View, "of", looked)
    monkeypatch.setattr(training_module._Attempt, "batches", batches)
    monkeypatch.setattr(training_module._Attempt, "loss", loss)
    for options in (QUICK, {**QUICK, "no_boundary_cache": True, "views": 2, "flip": "yes"}):
        decoded.clear(), trained.clear(), judged.clear()
        tuned = finetune(model, samples, **options)
        assert decoded == set(model.split.train_ids)
        own = [name for name in samples.ids if name in set(model.split.train_ids)]
        rows = {own[row] for batch in trained for row in batch}
        assert rows == set(model.split.train_ids) - set(tuned.validation_ids)
        assert judged == trained
        epochs = len(tuned.tuning.epochs)
        assert sorted(row for batch in trained for row in batch) == sorted(
            [own.index(name) for name in rows] * epochs
        )


def test_what_is_held_out_changes_nothing(model, samples, tuned):
    """Labels of test rows turned round, and their pictures gone: the same to the last bit."""
    held = np.isin(samples.ids, model.split.test_ids)
    labels = np.where(held, "right", samples.columns["label"]).astype(object)
    other = dataclasses.replace(samples, columns={"label": labels})
    assert candidate(finetune(model, other, **QUICK)) == candidate(tuned)
    assert candidate(finetune(model, samples.subset(~held), **QUICK)) == candidate(tuned)


def test_labels_of_validation_rows_do_not_move_a_single_step(model, samples, tuned):
    aside = np.isin(samples.ids, tuned.validation_ids)
    turned = {"flat": "left", "left": "right", "right": "flat"}
    labels = np.array(
        [turned[label] if own else label
         for label, own in zip(samples.columns["label"], aside, strict=True)], object,
    )  # fmt: skip
    # Dealt by class, so by these labels: they are given as they were.
    given = copy.copy(model)
    given.split = tuned.tuning.split
    other = finetune(given, dataclasses.replace(samples, columns={"label": labels}), **QUICK)
    assert other.validation_ids == tuned.validation_ids
    ours, theirs = curve(tuned), curve(other)
    steps = min(len(ours), len(theirs))
    assert [row[0] for row in ours[:steps]] == [row[0] for row in theirs[:steps]]
    assert [row[1] for row in ours[:steps]] != [row[1] for row in theirs[:steps]]


# What is changed, and what is not


@pytest.mark.parametrize("options", [{}, {"no_boundary_cache": True}], ids=["cache", "no cache"])
def test_everything_below_the_boundary_and_all_statistics_are_bit_for_bit_as_they_were(
    model, samples, options
):
    frozen = model.backbones["own"]
    before = {key: value.clone() for key, value in frozen.network.module.state_dict().items()}
    found = finetune(model, samples, **QUICK, **options).tuning.candidate
    trained = Cut(frozen, TAPS, 2).trained
    assert trained
    for key, value in found.network.module.state_dict().items():
        assert torch.equal(value, before[key]) == (key not in trained), key
    for key, value in frozen.network.module.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", ["resnet", "vit", "efficientnet"])
def test_networks_with_normalisation_of_all_kinds_go_through(name):
    pictures, labels = skies(14)
    backbone = tiny(name)
    samples = SampleSet.from_list(list(pictures), {"label": labels})
    model = model_of(samples, backbone)
    tuned = finetune(model, samples, blocks=1, views=1, max_epochs=2, lr=0.01)
    assert len(tuned.tuning.epochs) == 2
    names = dict(backbone.network.module.named_parameters())
    after = tuned.tuning.candidate.network.module.state_dict()
    trained = Cut(backbone, [layer.rpartition("/")[2] for layer in model.layers], 1).trained
    for key, value in backbone.network.module.state_dict().items():
        if key not in trained:
            assert torch.equal(value, after[key]), key
    assert any(not torch.equal(names[key], after[key]) for key in trained)


@pytest.mark.parametrize("views", [1, 6])
def test_the_loss_curve_is_the_same_with_and_without_a_boundary_cache(model, samples, views):
    """There are as many views as epochs; what is kept is rounded to half precision."""
    options = {**QUICK, "views": views, "flip": "yes", "lr": 0.005}
    kept = finetune(model, samples, **options)
    run = finetune(model, samples, **options, no_boundary_cache=True)
    found, expected = np.array(curve(kept)), np.array(curve(run))
    assert len(found) == 5
    assert np.ptp(expected[:, 0]) > 0.01
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert kept.validation_ids == run.validation_ids


def test_without_a_boundary_cache_every_epoch_has_views_of_its_own(model, samples, monkeypatch):
    seen = []
    real = stage_module.View.of

    def looked(view, pixels, digest):
        seen.append((view.number, view.flip))
        return real(view, pixels, digest)

    monkeypatch.setattr(stage_module.View, "of", looked)
    finetune(
        model, samples, **{**QUICK, "views": 2, "max_epochs": 3}, no_boundary_cache=True, flip="yes"
    )
    assert {number for number, _ in seen} == {0, 1, 2, 3}
    assert all(flip for number, flip in seen if number)


# Repeatable


def test_the_same_call_gives_the_same_numbers_and_another_seed_gives_others(model, samples, tuned):
    assert candidate(finetune(model, samples, **QUICK)) == candidate(tuned)
    other = candidate(finetune(model, samples, **QUICK, seed=5))
    assert other["digest"] != candidate(tuned)["digest"]
    assert other["shared"][-1] == tuned.validation_ids  # the rows belong to the model's split


def test_the_order_of_the_source_does_not_decide_which_rows_judge(model, samples, tuned):
    backwards = samples.subset(np.arange(N)[::-1])
    other = finetune(model, backwards, **QUICK)
    assert set(other.validation_ids) == set(tuned.validation_ids)
    assert other.tuning.frozen_loss == pytest.approx(tuned.tuning.frozen_loss, rel=1e-2)


CALL = {"blocks": 2, "views": 3, "max_epochs": 5, "lr": 0.02, "flip": "no"}


def die_in_epoch(number, beside):
    """In a child: tune, and be killed in the middle of an epoch."""
    real = training_module._Attempt.batches

    def batches(steps, epoch):
        for place, batch in enumerate(real(steps, epoch)):
            if epoch == number and place == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    training_module._Attempt.batches = batches
    samples = striped(N)
    finetune(model_of(samples), samples, beside=beside, **CALL)


def in_child(work, *args):
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=work, args=args)
    with patch.dict(os.environ, environment()):
        child.start()
    child.join()
    return child.exitcode


def test_after_a_kill_the_same_call_goes_on_and_ends_as_if_nothing_had_been(
    model, samples, tmp_path, monkeypatch
):
    beside = tmp_path / "model.safetensors"
    assert in_child(die_in_epoch, 3, beside) == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"model.safetensors.boundary.h5", "model.safetensors.state.pt"}
    started = []
    real = training_module._Attempt.batches

    def batches(steps, epoch):
        started.append(epoch)
        return real(steps, epoch)

    monkeypatch.setattr(training_module._Attempt, "batches", batches)
    gone_on = finetune(model, samples, beside=beside, **CALL)
    assert started == [3, 4, 5][: len(gone_on.tuning.epochs) - 2]
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.safetensors.log.csv", "model.safetensors.log.png",
    }  # fmt: skip
    assert candidate(gone_on) == candidate(finetune(model, samples, **CALL))


# The best so far, and never worse


def test_ctrl_c_keeps_the_best_so_far_where_a_model_is_to_be_written(
    model, samples, monkeypatch, tmp_path
):
    whole = finetune(model, samples, **QUICK)
    real = training_module._Attempt.loss
    calls = []

    def loss(steps, network, own, *rest):
        calls.append(len(own))
        if len(calls) == 2 * steps_of(samples, model) + 2:
            raise KeyboardInterrupt
        return real(steps, network, own, *rest)

    monkeypatch.setattr(training_module._Attempt, "loss", loss)
    stopped = finetune(model, samples, beside=tmp_path / "model.safetensors", **QUICK)
    assert stopped.tuning.interrupted
    assert not whole.tuning.interrupted
    assert curve(stopped) == curve(whole)[:2]
    assert stopped.tuning.best_epoch in (1, 2)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):  # a program around it ends as well
        finetune(model, samples, **QUICK)


def steps_of(samples, model):
    n_train = len(model.split.train_ids) - round(0.15 * len(model.split.train_ids))
    return -(-n_train // 32)


def test_where_every_rate_is_too_high_the_frozen_network_is_kept(
    model, samples, monkeypatch, caplog
):
    monkeypatch.setattr(training_module, "_MUCH_WORSE", 0.0)
    monkeypatch.setattr(training_module, "_BAD", 0.0)
    monkeypatch.setattr(training_module, "_LOWEST_RATE", 1e-3)
    monkeypatch.setattr(Judge, "better", lambda *_: True)  # by chance
    caplog.set_level(logging.INFO, logger="pipeline.finetuning")
    tuned = finetune(model, samples, **{**QUICK, "lr": None})
    assert (tuned.tuning.kept, tuned.tuning.best_epoch, tuned.tuning.epochs) == ("frozen", 0, ())
    said = [record.getMessage() for record in caplog.records]
    assert "a rate of 0.004 is too high for these pictures: again with a third of it" in said


def test_a_rate_is_not_blamed_for_what_the_frozen_model_loses_on_views(model, samples, monkeypatch):
    found = []
    real = training_module._Attempt.loss_before

    def watched(attempt):
        found.append(real(attempt))
        return found[-1]

    monkeypatch.setattr(training_module._Attempt, "loss_before", watched)
    options = {**QUICK, "views": 2, "max_epochs": 1}
    finetune(model, samples, **{**options, "lr": None})
    unmoved = finetune(model, samples, **{**options, "lr": 1e-12})
    ((frozen,), (epoch,)) = found, unmoved.tuning.epochs
    assert frozen == pytest.approx(epoch.epoch.loss, rel=1e-5)
    clean = finetune(model, samples, **{**options, "lr": 1e-12, "views": 1}).tuning.epochs[0]
    assert frozen > clean.epoch.loss


@pytest.mark.parametrize("beaten", [("rival",), ("scores",), ("rival", "scores")])
def test_it_must_beat_the_model_that_came_in_and_what_it_began_with(
    model, samples, monkeypatch, beaten
):
    """What it began with may be the better one by chance: that is no merit of training."""
    seen = []

    def better(judge, before, after):
        seen.append((before, after))
        return (len(seen) == 1 and "rival" in beaten) or (len(seen) == 2 and "scores" in beaten)

    monkeypatch.setattr(Judge, "better", better)
    starts = []
    real = stage_module.Start.of
    monkeypatch.setattr(
        stage_module.Start, "of", lambda *given: starts.append(real(*given)) or starts[0]
    )
    tuned = finetune(model, samples, **{**QUICK, "max_epochs": 2})
    (start,) = starts
    assert tuned.tuning.kept == ("tuned" if len(beaten) == 2 else "frozen")
    np.testing.assert_array_equal(seen[0][0], start.losses(start.rival))
    if "rival" in beaten:
        np.testing.assert_array_equal(seen[1][0], start.losses(start.scores))
        np.testing.assert_array_equal(seen[1][1], seen[0][1])


def test_labels_that_mean_nothing_keep_the_frozen_network(caplog):
    rng = np.random.default_rng(0)
    samples = striped(90, label=rng.choice(["heads", "tails"], 90).tolist())
    model = model_of(samples)
    caplog.set_level(logging.INFO, logger="pipeline.finetuning")
    tuned = finetune(model, samples, **{**QUICK, "max_epochs": 3})
    assert tuned.tuning.kept == "frozen"
    assert tuned.heads == {}
    assert tuned.weights_digest == model.backbones["own"].weights_digest
    assert tuned.tuning.candidate.weights_digest != tuned.weights_digest
    pictures = np.stack(samples.sources[:4])
    np.testing.assert_allclose(
        tuned.embed(pictures), model.backbones["own"].embed(pictures), atol=1e-5
    )
    assert any("frozen is kept" in record.getMessage() for record in caplog.records)


def test_a_network_that_is_not_kept_leaves_no_graph_in_the_cache_folder(tmp_path, monkeypatch):
    def converted():
        facts = (json.loads(path.read_bytes()) for path in tmp_path.glob("graphs/*/graph.json"))
        return {own["shaped_by"]["weights_digest"] for own in facts}

    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(tmp_path))
    samples = striped(90, label=np.random.default_rng(0).choice(["heads", "tails"], 90).tolist())
    served = load_backbone("timm/test_resnet", weights=None, image_size=32)
    model = model_of(samples, served)
    judged = []
    monkeypatch.setattr(Judge, "better", lambda *_: judged.append(converted()))
    tuned = finetune(model, samples, **{**QUICK, "max_epochs": 2, "lr": 1e-4})
    assert tuned.tuning.kept == "frozen"
    assert judged == [{served.weights_digest, tuned.tuning.candidate.weights_digest}]
    assert converted() == {served.weights_digest}


# Ways to train


def test_gradients_flow_whatever_mode_the_program_around_it_is_in(model, samples, tuned):
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert candidate(finetune(model, samples, **QUICK)) == candidate(tuned)


def test_blocks_join_one_by_one_if_asked(model, samples, monkeypatch):
    seen = []
    real = training_module.scores_of

    def scores(network, feed, rows):
        seen.append({key for key, own in network.cut.module.named_parameters()
                     if own.requires_grad})  # fmt: skip
        return real(network, feed, rows)

    monkeypatch.setattr(training_module, "scores_of", scores)
    finetune(model, samples, **{**QUICK, "blocks": 3}, gradual=True)
    assert [len(free) for free in seen[:3]] == [2, 4, 6]
    assert seen[0] == {"top.weight", "top.bias"}


@pytest.fixture(scope="module")
def two_tasks(samples):
    """Which way, and how bright; each is unknown for half of the rows."""
    rng = np.random.default_rng(1)
    light = np.array([picture.mean() / 10 for picture in samples.sources])
    kinds = [kind if known else None
             for kind, known in zip(slants(N), rng.random(N) < 0.5, strict=True)]  # fmt: skip
    lights = [value if known else None
              for value, known in zip(light, rng.random(N) < 0.5, strict=True)]  # fmt: skip
    both = dataclasses.replace(
        samples, columns={"kind": np.array(kinds, object), "light": np.array(lights, object)}
    )
    model = model_of(both, target="kind")
    other = model_of(both, target="light")
    assert other.split == model.split
    model.heads |= other.heads
    model.results |= other.results
    return model, both


def test_tasks_with_missing_labels_share_the_network(two_tasks, monkeypatch):
    model, samples = two_tasks
    weights = []
    real = training_module._Attempt.loss

    def loss(steps, network, own, shares, *inputs):
        weights.append((own, shares, [task.weight[own] for task in network.objectives]))
        return real(steps, network, own, shares, *inputs)

    monkeypatch.setattr(training_module._Attempt, "loss", loss)
    tuned = finetune(model, samples, **QUICK)
    tuning = tuned.tuning
    assert list(tuning.candidate_heads) == ["kind", "light"]
    assert tuning.candidate_heads["light"].coef.shape[0] == 1
    assert np.isfinite(curve(tuned)).all()
    for _, shares, known in weights:
        for place, own in enumerate(known):
            assert ((shares[:, place] > 0) == (own > 0)).all()
            assert float(shares[:, place].sum()) == pytest.approx(1)
    columns = samples.columns
    labelled = [
        name for name, one, two in zip(samples.ids, columns["kind"], columns["light"], strict=True)
        if (one is not None or two is not None) and name in set(model.split.train_ids)
    ]  # fmt: skip
    aside = set(tuned.validation_ids)
    assert aside < set(labelled)
    assert tuning.n_train["kind"] == sum(
        kind is not None and name in set(labelled) - aside
        for name, kind in zip(samples.ids, columns["kind"], strict=True)
    )


def test_uncertainty_learns_how_much_each_task_counts(two_tasks, monkeypatch):
    model, samples = two_tasks
    doubts = []
    real = training_module.scores_of

    def scores(network, feed, rows):
        doubts.append(network.doubt.detach().clone())
        return real(network, feed, rows)

    monkeypatch.setattr(training_module, "scores_of", scores)
    equal = finetune(model, samples, **QUICK)
    assert all((doubt == 0).all() for doubt in doubts)
    doubts.clear()
    weighted = finetune(model, samples, **QUICK, weighting="uncertainty")
    assert (doubts[-1] != 0).all()
    assert candidate(weighted)["digest"] != candidate(equal)["digest"]
    assert np.isfinite(curve(weighted)).all()


# What is refused


def test_a_picture_that_vanished_since_is_named(tmp_path, monkeypatch):
    samples = striped(40)
    for name, picture in zip(samples.ids, samples.sources, strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    filed = dataclasses.replace(
        samples, sources=tuple(tmp_path / f"{name}.png" for name in samples.ids)
    )
    model = model_of(filed)
    name = model.split.train_ids[3]
    real = stage_module.find_rows

    def then_gone(*args):
        rows = real(*args)
        (tmp_path / f"{name}.png").unlink()
        return rows

    monkeypatch.setattr(stage_module, "find_rows", then_gone)
    with pytest.raises(BadInputError) as caught:
        finetune(model, filed, **QUICK)
    assert list(caught.value.failures) == [(name, "no such file")]


def test_a_picture_that_vanishes_between_two_epochs_is_named(tmp_path, monkeypatch):
    samples = striped(40)
    paths = tuple(tmp_path / f"{name}.png" for name in samples.ids)
    for path, picture in zip(paths, samples.sources, strict=True):
        Image.fromarray(picture).save(path)
    filed = dataclasses.replace(samples, sources=paths)
    model = model_of(filed)
    name = model.split.train_ids[0]
    real = training_module._Attempt.batches

    def batches(steps, epoch):
        if epoch == 2:
            (tmp_path / f"{name}.png").unlink()
        return real(steps, epoch)

    monkeypatch.setattr(training_module._Attempt, "batches", batches)
    with pytest.raises(BadInputError) as caught:
        finetune(model, filed, **QUICK, no_boundary_cache=True)
    assert list(caught.value.failures) == [(name, "no such file")]


def test_a_head_that_is_not_linear_is_refused_before_anything_is_read(samples):
    model = model_of(samples, head="knn")
    with pytest.raises(OptionError, match="the head knn of target 'label' is not linear"):
        finetune(model, None, **QUICK)


def test_more_blocks_than_there_are(model, samples):
    with pytest.raises(OptionError) as caught:
        finetune(model, samples, blocks=5)
    assert str(caught.value) == (
        "blocks is 5, but own has 4 up to the layer top: low, middle, high, top. Give a number "
        "from 1 to 4."
    )


def test_a_head_that_would_be_another_on_fewer_rows(model, samples):
    stacked = copy.copy(model)
    found = model.results["label"]
    stacked.results = {"label": dataclasses.replace(found, head="best")}
    with pytest.raises(OptionError) as caught:
        finetune(stacked, samples)
    assert str(caught.value) == (
        "the head best is not linear in the layers: what it stacks, and so whether it is, depends "
        "on the rows. Linear are logistic, ridge, layer_ridge, svm, lda, linear, and what of "
        "scikit-learn predicts from linear scores. Train with one of them."
    )


def test_layers_of_two_networks(model, samples):
    both = copy.copy(model)
    both.specs = {**model.specs, "other": model.specs["own"]}
    with pytest.raises(OptionError) as caught:
        finetune(both, samples)
    assert str(caught.value) == (
        "the model takes layers of 2 backbones (own, other), but one network is tuned at a time. "
        "Train on the layers of one: --layers."
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"blocks": 0},
            "blocks is 0, but must be at least 1. 1 trains the top block, 2 are usual.",
        ),
        ({"max_epochs": 0}, "max epochs is 0, but must be at least 1. 10 are usual."),
        (
            {"views": 0},
            "views is 0, but must be at least 1. 1 is the picture as it is, 6 add five augmented "
            "views.",
        ),
        ({"lr": 0}, "lr is 0, but must be above 0 and below 1. Leave it out for 0.004"),
        (
            {"decay": 1.5},
            "decay is 1.5, but must be above 0 and at most 1. 1 gives every block the same rate; "
            "leave it out for 0.75.",
        ),
        (
            {"seed": -1},
            "seed is -1, but must be from 0 to 4294967295. Leave it out for the usual one.",
        ),
    ],
)
def test_options_that_make_no_sense(model, samples, options, said):
    with pytest.raises(OptionError) as caught:
        finetune(model, samples, **options)
    assert str(caught.value).startswith(said)
