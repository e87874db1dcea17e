"""`run`, `embed` and `train`: what they leave, what they say, what they refuse."""

import csv
import json
import shutil
import tomllib

import h5py
import numpy as np
import pytest
from photo_album import write_album

from pipeline.model import TransferModel

TARGET_KEYS = {
    "kind", "accuracy", "balanced_accuracy", "macro_f1", "majority", "log_loss", "ece", "n_train",
    "n_test", "layers", "fusion", "head", "fusions",
}  # fmt: skip


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# ---------------------------------------------------------------- the folder of a run


def test_a_run_leaves_these_files(first_run):
    names = {path.name for path in first_run.iterdir() if not path.name.endswith(".lock")}
    assert names == {
        "cache.h5", "model.safetensors", "config.toml", "metrics.json", "predictions.csv",
        "failed.csv",
    }  # fmt: skip


def test_failures_are_named(first_run):
    header, *found = rows(first_run / "failed.csv")
    assert header == ["id", "reason"]
    assert [name for name, _ in found] == ["noon/broken.png"]
    assert len(found[0][1]) > 10


def test_predictions_are_those_of_the_held_out_rows(first_run, album):
    header, *found = rows(first_run / "predictions.csv")
    assert header == ["id", "label", "prediction", "dawn", "night", "noon"]
    metrics = json.loads((first_run / "metrics.json").read_text())["targets"]["label"]
    assert len(found) == metrics["n_test"]
    right = [row[1] == row[2] for row in found]
    assert np.mean(right) == pytest.approx(metrics["accuracy"])
    model = TransferModel.load(first_run / "model.safetensors")
    proba = model.predict_proba([album / row[0] for row in found])
    np.testing.assert_allclose([[float(p) for p in row[3:]] for row in found], proba, atol=1e-6)
    assert [row[0].split("/")[0] for row in found] == [row[1] for row in found]


def test_metrics_have_one_shape(first_run):
    metrics = json.loads((first_run / "metrics.json").read_text())
    assert set(metrics) == {"targets", "seconds"}
    assert set(metrics["targets"]["label"]) == TARGET_KEYS
    fusion = metrics["targets"]["label"]["fusions"][0]
    assert {"fusion", "layers", "by", "accuracy", "log_loss", "log_loss_se", "seconds"} <= set(
        fusion
    )
    assert fusion["by"] in ("loo", "cv")


def test_the_configuration_is_resolved(first_run, tiny):
    found = tomllib.loads((first_run / "config.toml").read_text())
    assert found["embed"]["backbone"] == "timm/test_resnet"
    assert found["embed"]["image-size"] == 32
    assert found["embed"]["weights"] == tiny[3]
    assert found["embed"]["precision"] in ("float32", "bfloat16")
    assert found["embed"]["layers"].count("timm/test_resnet/") == 5
    assert found["train"]["target"] == "label"
    assert found["train"]["head"] == "ridge"
    assert found["train"]["fusion"] in ("last", "average", "concat")
    assert found["given"] == "backbone, image-size, weights, head"


def test_running_from_the_configuration_gives_the_same_bytes(first_run, album, tmp_path, cli):
    again = tmp_path / "again"
    code, _, err = cli("run", album, "--out", again, "--config", first_run / "config.toml")
    assert code == 0, err
    for name in ("failed.csv", "predictions.csv"):
        assert (again / name).read_bytes() == (first_run / name).read_bytes()
    ours, theirs = (TransferModel.load(out / "model.safetensors") for out in (again, first_run))
    np.testing.assert_array_equal(
        ours.predict_proba(album / "dawn"), theirs.predict_proba(album / "dawn")
    )
    third = tmp_path / "third"
    shutil.copytree(again, third)
    code, _, err = cli("run", album, "--out", third, "--config", again / "config.toml")
    assert code == 0, err
    assert "nothing to do: 24 reused" in err
    assert (third / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_the_limit_of_pixels_and_the_threads_make_no_other_run(finished, album, tiny, cli):
    words = ["run", album, "--out", finished, *tiny, "--head", "ridge"]
    code, _, err = cli(*words, "--max-pixels", "100", "--num-workers", "1")
    assert code == 0, err
    assert "nothing to do: 24 reused" in err


def test_the_same_run_again_embeds_nothing_and_changes_no_byte(finished, album, tiny, cli):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    code, out, err = cli("run", album, "--out", finished, *tiny, "--head", "ridge")
    assert code == 0
    assert "nothing to do: 24 reused; 1 failed:" in err
    assert f"{finished / 'failed.csv'} names them" in err
    for name in ("cache.h5", "model.safetensors", "config.toml", "predictions.csv", "failed.csv"):
        assert (finished / name).read_bytes() == before[name], name
    last = out.splitlines()[-1]
    assert last.startswith("accuracy ")
    assert last.endswith(f"  {finished / 'model.safetensors'}")


def test_what_a_run_says(finished, album, tiny, cli):
    _, out, err = cli("run", album, "--out", finished, *tiny, "--head", "ridge")
    assert len(out.splitlines()) == 1
    lines = err.splitlines()
    assert lines[0] == "25 images, 3 classes (smallest: dawn, 8)"
    assert lines[-1] == f"next: pipeline predict {finished / 'model.safetensors'} NEW"
    assert "held-out rows, seed 0, majority class " in lines[-2]
    assert "95 % interval" in lines[-2]


def test_json_is_the_only_thing_on_standard_output(finished, album, tiny, cli):
    code, out, _ = cli("run", album, "--out", finished, *tiny, "--head", "ridge", "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found) == {"targets", "seconds"}
    assert found == json.loads((finished / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["--head", "lda"], "head is lda here and ridge there"),
        ([], "head is auto here and ridge there"),
        (["--head", "ridge", "--seed", "4"], "seed is 4 here and 0 there"),
        (["--head", "ridge", "--layers", "features"], "layers is features here and timm/"),
        (["--head", "ridge", "--target-kind", "label=class"], "here and not given there"),
        (["--head", "ridge", "--image-size", "64"], "image-size is 64 here and 32 there"),
    ],
)
def test_another_configuration_is_refused(refused, finished, album, tiny, words, difference):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    options = tiny[:4] if "--image-size" in words else tiny
    said = refused(1, "run", album, "--out", finished, *options, *words)
    assert f"{finished} holds a run of another configuration: " in said
    assert difference in said
    assert "Give another --out, or --overwrite: a cache whose spec fits is kept" in said
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_what_changes_no_number_is_no_other_configuration(finished, album, tiny, cli):
    words = ["--batch-size", "3", "--prune", "--device", "cpu", "--on-bad-input", "skip"]
    code, _, err = cli("run", album, "--out", finished, *tiny, "--head", "ridge", *words)
    assert code == 0, err
    assert "nothing to do" in err


def test_the_cache_answers_for_a_network_that_is_not_given(finished, album, cli):
    code, _, err = cli("run", album, "--out", finished, "--head", "ridge")
    assert code == 0, err
    assert "nothing to do: 24 reused" in err


def test_overwriting_keeps_a_cache_that_fits(finished, album, tiny, cli):
    words = ["run", album, "--out", finished, *tiny, "--head", "lda", "--layers", "features"]
    code, _, err = cli(*words, "--overwrite")
    assert code == 0, err
    assert "nothing to do: 24 reused" in err
    model = TransferModel.load(finished / "model.safetensors")
    assert list(model.layers) == ["timm/test_resnet/features"]
    assert model.results["label"].head == "lda"
    code, _, err = cli(*words)
    assert code == 0, err


def test_overwriting_drops_a_cache_of_another_spec(finished, album, tiny, cli):
    words = [*tiny[:4], "--image-size", "40"]
    code, _, err = cli("run", album, "--out", finished, *words, "--overwrite")
    assert code == 0, err
    assert "are of another spec: made anew" in err
    with h5py.File(finished / "cache.h5") as file:
        (spec,) = (
            json.loads(file.attrs["specs"]).values()
            if isinstance(json.loads(file.attrs["specs"]), dict)
            else json.loads(file.attrs["specs"])
        )
    assert spec["preprocess"]["image_size"] == [40, 40]


def test_a_refused_option_leaves_the_old_run_alone(refused, finished, album, tiny):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    words = [*tiny, "--layers", "layer9", "--overwrite"]
    assert "unknown layer 'layer9'" in refused(1, "run", album, "--out", finished, *words)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_a_damaged_configuration_is_said(refused, finished, album, tiny):
    (finished / "config.toml").write_text("[embed")
    said = refused(1, "run", album, "--out", finished, *tiny)
    assert "config.toml cannot be read as the configuration of a run" in said
    assert "--overwrite" in said


def test_a_place_that_cannot_be_a_folder_is_refused(refused, album, tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    said = refused(1, "run", album, "--out", tmp_path / "file", *tiny)
    assert f"{tmp_path / 'file'} is a file. Give a folder to write into: --out DIR." in said
    said = refused(1, "run", album, "--out", tmp_path / "file" / "out", *tiny)
    assert "cannot make the folder" in said
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------- embed


def test_embed_says_what_it_did(album, tiny, finished, cli):
    cache = finished / "cache.h5"
    code, out, err = cli("embed", album, cache)
    assert (code, out) == (0, f"{cache}\n")
    assert "nothing to do: 24 reused; 1 failed: `pipeline info " in err
    code, out, err = cli("embed", album, cache, "--json")
    found = json.loads(out)
    assert set(found) == {
        "rows", "failed", "reused", "layers", "images_per_second", "limit", "seconds",
    }  # fmt: skip
    assert (found["rows"], found["failed"], found["reused"]) == (24, 1, 24)
    assert set(found["seconds"]) == {"start", "decode", "forward", "write", "wait", "total"}
    assert len(found["layers"]) == 5


def test_dry_run_stops_before_anything_is_made(album, cli, tmp_path):
    code, out, err = cli("embed", album, tmp_path / "c.h5", "--dry-run")
    assert (code, out) == (0, "")
    assert "25 images to embed with efficientnet_lite0" in err
    assert not list(tmp_path.iterdir())


def test_only_new_photos_are_embedded(tiny, cli, tmp_path):
    photos = write_album(tmp_path / "photos", each=3)
    cache = tmp_path / "c.h5"
    assert cli("embed", photos, cache, *tiny)[0] == 0
    write_album(photos, each=4)
    code, out, _ = cli("embed", photos, cache, "--json")
    found = json.loads(out)
    assert (code, found["rows"], found["reused"]) == (0, 12, 9)


def test_fail_names_every_bad_file(refused, album, finished, tmp_path, tiny):
    (tmp_path / "out" / "cache.h5").unlink()
    said = refused(1, "embed", album, tmp_path / "c.h5", *tiny, "--on-bad-input", "fail")
    assert "1 input cannot be embedded:\n  noon/broken.png: " in said
    assert "on-bad-input skip" in said
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize("words", [["--image-size", "48"], ["--resize", "pad"]])
def test_a_cache_of_another_spec_is_refused(refused, album, finished, tiny, words):
    said = refused(1, "embed", album, finished / "cache.h5", *tiny[:4], *words)
    assert "holds embeddings of another spec: " in said
    assert "here and" in said
    assert "Give the options it was made with, or another cache file." in said


def test_a_place_where_nothing_can_be_written_is_refused(refused, album, tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    said = refused(1, "embed", album, tmp_path / "file" / "c.h5", *tiny)
    assert "c.h5: its folder is a file. Give a place in a folder that can be written" in said
    refused(1, "embed", album, tmp_path / "file", *tiny)
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------- train


def test_train_prints_figure_and_path(finished, cli, tmp_path):
    code, out, err = cli("train", finished / "cache.h5", tmp_path / "m", "--head", "ridge")
    assert code == 0, err
    assert out.splitlines() == [f"accuracy 1.000  {tmp_path / 'm'}"]
    assert f"next: pipeline predict {tmp_path / 'm'} NEW" in err
    assert TransferModel.load(tmp_path / "m").results["label"].n_test


def test_train_json_has_the_shape_of_run(finished, cli, tmp_path):
    words = ["train", finished / "cache.h5", tmp_path / "m", "--head", "ridge", "--json"]
    found = json.loads(cli(*words)[1])
    assert set(found) == {"targets", "seconds"}
    assert set(found["targets"]["label"]) == TARGET_KEYS


def test_without_held_out_rows_the_figure_is_called_cross_validated(finished, cli, tmp_path):
    words = ["train", finished / "cache.h5", tmp_path / "m", "--test-fraction", "0"]
    code, out, err = cli(*words)
    assert code == 0
    assert out.startswith(("cross-validated accuracy ", "leave-one-out accuracy "))
    assert f"no rows were held out: the figure is {out.split()[0]}" in err
    code, out, _ = cli(*words, "--json")
    figures = json.loads(out)["targets"]["label"]
    assert figures["accuracy"] is None
    assert (figures["n_train"], figures["n_test"]) == (24, 0)


def test_layers_can_be_chosen(finished, cli, tmp_path, refused):
    words = ["train", finished / "cache.h5", tmp_path / "m", "--layers"]
    assert cli(*words, "layer1, features")[0] == 0
    layers = TransferModel.load(tmp_path / "m").layers
    assert set(layers) <= {"timm/test_resnet/layer1", "timm/test_resnet/features"}
    assert "Did you mean 'timm/test_resnet/features'?" in refused(1, *words, "featrues")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--target", "lable"], "unknown target 'lable'. Did you mean 'label'?"),
        (["--head", "rigde"], "unknown head 'rigde'. Did you mean 'ridge'?"),
        (["--fusion", "conact"], "unknown fusion 'conact'. Did you mean 'concat'?"),
        (["--fusion", "single:layer9"], "layer9"),
        (["--group", "patient"], "unknown group 'patient'"),
        (["--split-column", "part"], "unknown split column 'part'"),
    ],
)
def test_names_that_do_not_exist_are_suggested(refused, finished, tmp_path, words, sentence):
    assert sentence in refused(1, "train", finished / "cache.h5", tmp_path / "m", *words)
    assert not (tmp_path / "m").exists()


def test_a_number_ends_with_r2(cli, tmp_path, tiny, album):
    shutil.copytree(album, tmp_path / "photos")
    ages = {"night": 1, "noon": 5, "dawn": 9}
    lines = [f"photos/{kind}/{n}.png,{ages[kind] + n / 10}" for kind in ages for n in range(8)]
    (tmp_path / "table.csv").write_text("\n".join(["path,age", *lines]))
    code, out, err = cli("run", tmp_path / "table.csv", "--out", tmp_path / "o", *tiny)
    assert code == 0, err
    assert out.splitlines()[-1].startswith("r2 0.")
    assert "24 images, age" in err
    header, *found = rows(tmp_path / "o" / "predictions.csv")
    assert header == ["id", "label", "prediction"]
    assert all(abs(float(label) - float(guess)) < 2 for _, label, guess in found)
