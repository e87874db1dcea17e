"""The whole way, by every door: they must all lead to the same place."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photo_album import skies, write_album, write_tiny_weights

from pipeline import EmbeddingStore, SampleSet, TransferModel, embed, run, train
from pipeline.cli import main
from pipeline.config import EmbedOptions, TrainOptions

DIGITS = Path(__file__).parent.parent / "data" / "digits"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    return write_album(tmp_path_factory.mktemp("album") / "photos", each=7)


@pytest.fixture(scope="module")
def by_run(album, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    words = ["run", str(album), "--out", str(out), "--backbone", "timm/test_resnet"]
    assert main([*words, "--weights", str(weights), "--image-size", "32", "--seed", "2"]) == 0
    return out


def without_times(metrics: dict) -> dict:
    metrics = json.loads(json.dumps(metrics))
    metrics.pop("seconds", None)
    for target in metrics["targets"].values():
        for fusion in target["fusions"]:
            fusion.pop("seconds")
    return metrics


def same_model(ours: Path, theirs: Path, album: Path) -> None:
    left, right = TransferModel.load(ours), TransferModel.load(theirs)
    assert left.specs == right.specs
    assert left.split.train_digests == right.split.train_digests
    np.testing.assert_array_equal(left.predict_proba(album), right.predict_proba(album))


def test_the_stages_one_by_one_are_the_run(album, weights, by_run, tmp_path, capsys):
    cache, model = tmp_path / "c.h5", tmp_path / "m"
    words = ["--backbone", "timm/test_resnet", "--weights", str(weights), "--image-size", "32"]
    assert main(["embed", str(album), str(cache), *words]) == 0
    capsys.readouterr()
    assert main(["train", str(cache), str(model), "--seed", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    metrics = json.loads((by_run / "metrics.json").read_text())
    assert without_times(printed) == without_times(metrics)
    same_model(model, by_run / "model.safetensors", album)


def test_the_python_doors_are_the_run(album, weights, by_run, tmp_path):
    samples = SampleSet.from_folder(album)
    options = EmbedOptions(backbone="timm/test_resnet", weights=weights, image_size=32)
    with embed(samples, None, tmp_path / "c.h5", options=options) as store:
        train(store, TrainOptions(seed=2)).save(tmp_path / "m")
    same_model(tmp_path / "m", by_run / "model.safetensors", album)
    finished = run(samples, tmp_path / "out", options, TrainOptions(seed=2))
    same_model(finished.path, by_run / "model.safetensors", album)


def test_files_arrays_and_the_cache_predict_the_same(album, by_run):
    model = TransferModel.load(by_run / "model.safetensors")
    photos, kinds = skies(7)
    expected = model.predict_proba(list(photos))
    paths = [album / kind / f"{n % 7}.png" for n, kind in enumerate(kinds)]
    np.testing.assert_array_equal(model.predict_proba(paths), expected)
    with EmbeddingStore.open(by_run / "cache.h5") as store:
        rows = [store.ids.index(path.relative_to(album).as_posix()) for path in paths]
        np.testing.assert_array_equal(model.predict_proba(store)[rows], expected)


def test_the_figure_can_be_had_again_by_evaluate(album, by_run, capsys):
    promised = json.loads((by_run / "metrics.json").read_text())["targets"]["label"]
    for source in (album, by_run / "cache.h5"):
        capsys.readouterr()
        model = str(by_run / "model.safetensors")
        assert main(["evaluate", model, str(source), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        for figure in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece", "n_test"):
            assert found["targets"]["label"][figure] == pytest.approx(promised[figure])
        assert found["left_out"] == 21 - promised["n_test"]


def test_names_and_order_change_no_prediction(album, by_run, tmp_path):
    model = TransferModel.load(by_run / "model.safetensors")
    expected = dict(
        zip(
            sorted(album.rglob("*.png")), model.predict_proba(sorted(album.rglob("*.png"))),
            strict=True,
        )
    )  # fmt: skip
    shuffled = list(expected)
    np.random.default_rng(0).shuffle(shuffled)
    copies = [
        Path(shutil.copy(path, tmp_path / f"{place}.png")) for place, path in enumerate(shuffled)
    ]
    np.testing.assert_array_equal(
        model.predict_proba(copies), [expected[path] for path in shuffled]
    )


@pytest.mark.pretrained
def test_the_bundled_network_from_an_empty_folder(tmp_path):
    """In processes of their own, as a user has them: run, again, predict, evaluate."""
    for digit in range(4):
        (tmp_path / "digits" / f"{digit}").mkdir(parents=True)
        for path in sorted((DIGITS / f"{digit}").iterdir())[:14]:
            shutil.copy(path, tmp_path / "digits" / f"{digit}")

    def call(*words):
        program = (
            "import sys; from pipeline.cli import main; code = main(sys.argv[1:]);"
            "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done

    first = call("run", "digits", "--out", "out", "--head", "ridge")
    assert first.stderr.splitlines()[0] == "56 images, 4 classes (smallest: 0, 14)"
    name, value, path = first.stdout.split()
    assert (name, path) == ("accuracy", "out/model.safetensors")
    assert float(value) > 0.6
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    again = call("run", "digits", "--out", "out", "--head", "ridge")
    assert "nothing to do: 56 reused" in again.stderr
    assert again.stderr.splitlines()[-1] == "False", "the second run needs no torch"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    call("predict", "out/model.safetensors", "digits/3", "--proba")
    with (tmp_path / "predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 14
    assert sum(row["prediction"] == "3" for row in table) >= 10
    evaluated = call("evaluate", "out/model.safetensors", "out/cache.h5", "--json")
    figures = json.loads(evaluated.stdout)["targets"]["label"]
    assert figures["accuracy"] == pytest.approx(float(value), abs=6e-4)
