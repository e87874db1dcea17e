"""What a tuning came to: a model, and figures of both networks."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, r2_score
from tuning_world import model_of, slants, striped, three_blocks

from pipeline import TransferModel
from pipeline.finetuning import compared, finetune, judging

N = 120
QUICK = {"blocks": 1, "views": 1, "max_epochs": 2, "lr": 0.02}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Keep the tuned network whatever the validation rows say: there are few of them."""
    monkeypatch.setattr(judging.Judge, "better", lambda *_: True)


def outcome_of(samples, **options):
    model = model_of(samples, **options)
    tuned = finetune(model, samples, **QUICK)
    return model, tuned.tuning, compared(model, samples, tuned)


def rows_aside(samples, tuning):
    return samples.subset(np.array([samples.ids.index(name) for name in tuning.validation_ids]))


def test_the_outputs_that_decided_are_those_of_the_file_that_is_written(tmp_path):
    samples = striped(N)
    _, tuning, outcome = outcome_of(samples)
    outcome.model.save(tmp_path / "tuned.safetensors")
    module = three_blocks().network.module
    served = TransferModel.load(tmp_path / "tuned.safetensors", backbone=module)
    aside = rows_aside(samples, tuning)
    expected = served.predict_proba(aside)
    np.testing.assert_allclose(tuning.tuned_outputs["label"], expected, atol=1e-5)
    loss = log_loss(aside.columns["label"], expected, labels=sorted(set(slants(3))))
    # The temperature of the file suits these rows; the judge gave each half that of the other.
    assert loss <= tuning.figures["label"]["log_loss"] + 1e-6
    assert tuning.tuned_loss == pytest.approx(tuning.figures["label"]["log_loss"] / np.log(3))


def test_without_held_out_rows_the_figures_are_those_of_the_outputs_that_decided():
    samples = striped(N)
    light = np.array([picture.mean() for picture in samples.sources], object)
    both = dataclasses.replace(samples, columns={**samples.columns, "light": light})
    _, tuning, outcome = outcome_of(both, test_fraction=0, target=("label", "light"))
    assert outcome.rows == "validation"
    aside = rows_aside(both, tuning)
    sides = (outcome.frozen, tuning.frozen_outputs), (outcome.tuned, tuning.tuned_outputs)
    for results, outputs in sides:
        truth, proba = aside.columns["label"], outputs["label"]
        said = np.array(sorted(set(slants(3))))[proba.argmax(axis=1)]
        figures = results["label"].figures
        assert results["label"].n_test == len(aside)
        assert figures["accuracy"] == accuracy_score(truth, said)
        assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, said))
        assert figures["log_loss"] == pytest.approx(log_loss(truth, proba))
        r2 = r2_score(aside.columns["light"].astype(float), outputs["light"][:, 0])
        assert results["light"].figures["r2"] == pytest.approx(r2)


def test_with_held_out_rows_both_are_measured_there():
    samples = striped(N)
    model, _, outcome = outcome_of(samples)
    assert (outcome.rows, outcome.model.results) == ("test", outcome.tuned)
    held_out = samples.subset(np.isin(samples.ids, model.split.test_ids))
    for one, results in ((model, outcome.frozen), (outcome.model, outcome.tuned)):
        accuracy = accuracy_score(held_out.columns["label"], one.predict(held_out))
        assert results["label"].figures["accuracy"] == accuracy
        assert results["label"].n_test == len(held_out)
