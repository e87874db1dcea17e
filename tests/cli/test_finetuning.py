"""`finetune`, and `run --finetune`: what they write, say and refuse."""

import csv
import json
import tomllib

import numpy as np
import pytest

from pipeline.finetuning import judging
from pipeline.model import TransferModel

QUICK = ["--blocks", "1", "--max-epochs", "2", "--views", "2"]
KEYS = {"targets", "kept", "rows", "frozen", "tuned", "seconds"}


@pytest.fixture
def always(monkeypatch):
    """Keep the tuned network whatever the validation rows say: there are few of them."""
    monkeypatch.setattr(judging.Judge, "better", lambda *_: True)


def test_the_frozen_model_comes_back_as_it_was_or_a_tuned_one_is_written(
    cli, first_run, album, tmp_path
):
    model, out = first_run / "model.safetensors", tmp_path / "tuned.safetensors"
    code, said, talk = cli("finetune", model, album, out, *QUICK, "--json")
    assert code == 0, talk
    found = json.loads(said)
    assert set(found) == KEYS
    assert found["rows"] == "test"
    assert found["targets"] == found[found["kept"]]
    before = json.loads((first_run / "metrics.json").read_text())["targets"]["label"]
    assert found["frozen"]["label"]["accuracy"] == pytest.approx(before["accuracy"])
    assert set(found["tuned"]["label"]) == set(before)
    assert (out.read_bytes() == model.read_bytes()) == (found["kept"] == "frozen")
    left = {path.name.removeprefix("tuned.safetensors") for path in tmp_path.iterdir()}
    assert left == {"", ".log.csv", ".log.png"}


def test_a_tuned_model_is_one_file_that_predicts_and_says_what_it_is(
    cli, first_run, album, tmp_path, always
):
    out = tmp_path / "tuned.safetensors"
    code, said, talk = cli("finetune", first_run / "model.safetensors", album, out, *QUICK)
    assert code == 0, talk
    assert "tuned is kept: on" in talk
    assert said.splitlines()[-1].endswith(str(out))
    frozen, tuned = (TransferModel.load(p) for p in (first_run / "model.safetensors", out))
    ((name, spec),) = tuned.specs.items()
    assert spec.weights_digest == tuned.backbones[name].weights_digest
    assert spec.weights_digest != frozen.specs[name].weights_digest
    assert tuned.results["label"].head == "linear"
    photos = sorted((album / "dawn").glob("*"))[:4]
    proba = tuned.predict_proba(photos)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert not np.allclose(proba, frozen.predict_proba(photos))
    assert "its weights inside" in cli("info", out)[1]
    assert cli("verify", out)[0] == 0
    code, said, _ = cli("evaluate", out, album, "--json")
    assert json.loads(said)["targets"]["label"]["accuracy"] == pytest.approx(
        tuned.results["label"].figures["accuracy"]
    )


def test_a_run_goes_on_to_fine_tuning_and_writes_it_down(cli, album, tiny, tmp_path, always):
    out = tmp_path / "out"
    words = ["run", album, "--out", out, *tiny, "--head", "ridge", "--finetune", "--blocks", 1,
             "--max-epochs", 1]  # fmt: skip
    code, _, talk = cli(*words)
    assert code == 0, talk
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == KEYS
    assert metrics["kept"] == "tuned"
    config = tomllib.loads((out / "config.toml").read_text())
    assert config["finetune"] == {"finetune": True, "blocks": 1, "max-epochs": 1}
    model = TransferModel.load(out / "model.safetensors")
    with (out / "predictions.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    proba = model.predict_proba([album / row[0] for row in rows])
    np.testing.assert_allclose([[float(p) for p in row[3:]] for row in rows], proba, atol=1e-6)
    code, _, talk = cli("run", album, "--out", out, *tiny, "--head", "ridge")
    assert code == 1
    assert "finetune is False here and True there" in talk


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--blocks", "9"], "blocks is 9, but timm/test_resnet has 4 up to the layer"),
        (["--blocks", "0"], "blocks is 0, but must be at least 1."),
        (["--views", "0"], "views is 0, but must be at least 1."),
        (["--lr", "3"], "lr is 3.0, but must be above 0 and below 1."),
        (["--batch-size", "none"], "batch size is 'none', but must be auto or a whole number"),
    ],
)
def test_what_cannot_be_is_refused(refused, first_run, album, tmp_path, words, sentence):
    model, out = first_run / "model.safetensors", tmp_path / "t.safetensors"
    assert sentence in refused(1, "finetune", model, album, out, *words)
    assert list(tmp_path.iterdir()) == []


def test_blocks_without_fine_tuning_are_refused(refused, album, tmp_path):
    said = refused(1, "run", album, "--out", tmp_path / "o", "--blocks", "3")
    assert said == (
        "--blocks is an option of fine-tuning, which was not asked for. Add --finetune, or leave "
        "it out."
    )


def test_another_source_is_refused_with_the_number_of_what_it_lacks(
    refused, first_run, album, tmp_path
):
    other = tmp_path / "photos"
    for kind in ("dawn", "noon"):
        (other / kind).mkdir(parents=True)
        for photo in sorted((album / kind).glob("*"))[:2]:
            (other / kind / photo.name).write_bytes(photo.read_bytes())
    model = first_run / "model.safetensors"
    said = refused(1, "finetune", model, other, tmp_path / "t.safetensors")
    assert "inputs that the model was trained on (compared by content; the first is" in said


def test_an_output_that_is_a_folder_is_refused_before_anything_is_trained(
    refused, first_run, album, tmp_path
):
    said = refused(1, "finetune", first_run / "model.safetensors", album, tmp_path)
    assert said == f"cannot write the model {tmp_path}: it is a folder. Give the path of a file."


def test_the_model_to_begin_with_is_not_written_over(refused, first_run, album):
    model = first_run / "model.safetensors"
    before = model.read_bytes()
    said = refused(1, "finetune", model, album, model.parent / "." / model.name)
    assert (
        "the model to begin with, which a tuning that was stopped needs to go on. Write to another "
        "file." in said
    )
    assert model.read_bytes() == before


def test_run_refuses_a_head_that_cannot_be_tuned_before_it_embeds(refused, album, tmp_path):
    said = refused(1, "run", album, "--out", tmp_path / "out", "--finetune", "--head", "knn")
    assert "the head knn is not linear in the layers: " in said
    assert not (tmp_path / "out").exists()
