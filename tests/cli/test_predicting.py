"""`predict` and `evaluate`: a model at work."""

import csv
import json
import shutil

import numpy as np
import pytest
from photo_album import write_album
from PIL import Image

from pipeline.model import TransferModel

DAWN = ["dawn"] * 8


@pytest.fixture(scope="module")
def model(first_run, tmp_path_factory):
    """Under a suffix that says nothing: content tells what a file is."""
    return shutil.copy(first_run / "model.safetensors", tmp_path_factory.mktemp("m") / "model.bin")


@pytest.fixture
def predicted(cli, model, tmp_path):
    def call(*words):
        code, out, err = cli("predict", model, *words, "--out", tmp_path / "p.csv")
        assert code == 0, err
        assert out.splitlines()[-1] == str(tmp_path / "p.csv")
        with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file)), err

    return call


def test_a_folder_in_order(predicted, album):
    (header, *rows), err = predicted(album)
    assert header == ["id", "prediction"]
    names = sorted(path.relative_to(album).as_posix() for path in album.rglob("*.png"))
    assert [name for name, _ in rows] == names
    assert dict(rows) == {
        name: "" if name.endswith("broken.png") else name.partition("/")[0] for name in names
    }
    assert "no prediction for noon/broken.png: " in err


def test_one_file_and_several_in_the_order_given(predicted, album):
    rows, _ = predicted(album / "dawn" / "3.png")
    assert [row[1] for row in rows] == ["prediction", "dawn"]
    rows, _ = predicted(album / "night" / "1.png", album / "dawn" / "3.png")
    assert [row[1] for row in rows[1:]] == ["night", "dawn"]


def test_a_table_and_a_list(predicted, album, tmp_path):
    shutil.copytree(album, tmp_path / "photos")
    (tmp_path / "t.csv").write_text("path,other\nphotos/noon/1.png,x\nphotos/dawn/1.png,y\n")
    (tmp_path / "l.txt").write_text("photos/night/1.png\nphotos/noon/1.png\n")
    assert [row[1] for row in predicted(tmp_path / "t.csv")[0][1:]] == ["noon", "dawn"]
    assert [row[1] for row in predicted(tmp_path / "l.txt")[0][1:]] == ["night", "noon"]


def test_links_out_of_the_folder_and_large_pictures_are_read_when_asked_for(
    predicted, cli, model, album, tmp_path
):
    (tmp_path / "photos" / "dawn").mkdir(parents=True)
    (tmp_path / "photos" / "dawn" / "far.png").symlink_to(album / "dawn" / "1.png")
    shutil.copy(album / "dawn" / "2.png", tmp_path / "photos" / "dawn")
    kept, err = predicted(tmp_path / "photos")
    assert kept[1:] == [["dawn/2.png", "dawn"], ["dawn/far.png", ""]]
    assert "dawn/far.png: a link that leads out of the folder; --follow-outside reads it" in err
    followed, _ = predicted(tmp_path / "photos", "--follow-outside")
    assert followed[1:] == [["dawn/2.png", "dawn"], ["dawn/far.png", "dawn"]]
    small, err = predicted(tmp_path / "photos", "--max-pixels", "1759")
    assert [row[1] for row in small[1:]] == ["", ""]
    assert "44 x 40 pixels are more than the limit of 1,759: raise it with --max-pixels" in err
    assert predicted(tmp_path / "photos", "--max-pixels", "1760")[0] == kept
    words = ["evaluate", model, tmp_path / "photos", "--include-training"]
    assert cli(*words)[1] == "label accuracy 1.000  1 rows\n"
    assert cli(*words, "--follow-outside")[1] == "label accuracy 1.000  2 rows\n"
    assert "there is nothing to measure on" in cli(*words, "--max-pixels", "9")[2]


def test_a_name_that_a_spreadsheet_would_compute_is_text(predicted, album, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("=1+1.png", "@x.png", "-1.png", "a=b.png"):
        shutil.copy(album / "dawn" / "1.png", tmp_path / "photos" / name)
    (_, *rows), _ = predicted(tmp_path / "photos")
    assert sorted(row[0] for row in rows) == ["'-1.png", "'=1+1.png", "'@x.png", "a=b.png"]


def test_probabilities_are_those_of_the_model(predicted, album, model):
    (header, *rows), _ = predicted(album / "dawn", "--proba")
    assert header == ["id", "prediction", "dawn", "night", "noon"]
    expected = TransferModel.load(model).predict_proba(album / "dawn")
    np.testing.assert_allclose([[float(p) for p in row[2:]] for row in rows], expected, atol=1e-6)


def test_doubtful_predictions_stay_empty(predicted, album):
    sure, _ = predicted(album / "dawn", "--min-confidence", "0")
    none, _ = predicted(album / "dawn", "--min-confidence", "1")
    assert [row[1] for row in sure[1:]] == DAWN
    assert [row[1] for row in none[1:]] == [""] * 8
    assert [row[0] for row in none] == [row[0] for row in sure]


def test_json_counts(cli, model, album, tmp_path):
    code, out, _ = cli("predict", model, album, "--out", tmp_path / "p.csv", "--json")
    assert code == 0
    assert json.loads(out) == {"rows": 25, "failed": 1, "out": str(tmp_path / "p.csv")}


def test_fail_stops_and_writes_nothing(refused, model, album, tmp_path):
    words = ["predict", model, album, "--out", tmp_path / "p.csv", "--on-bad-input", "fail"]
    assert "noon/broken.png: " in refused(1, *words)
    assert not (tmp_path / "p.csv").exists()


def test_a_place_that_cannot_be_written(refused, model, album, tmp_path):
    said = refused(1, "predict", model, album / "dawn", "--out", tmp_path / "no" / "p.csv")
    assert "cannot write" in said
    assert "Give a path in a folder that exists" in said


@pytest.mark.parametrize("content", [b"", b"text", b"\x00" * 100])
def test_what_is_no_model_is_said(refused, album, tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    assert "is not a model file, or was cut short" in refused(1, "predict", tmp_path / "m", album)


def test_a_missing_model_is_said(refused, album, tmp_path):
    said = refused(1, "predict", tmp_path / "m", album)
    assert "no model file at" in said


def test_evaluate_leaves_out_what_was_trained_on(cli, model, album, finished):
    for source in (album, finished / "cache.h5"):
        code, out, err = cli("evaluate", model, source)
        assert code == 0
        n_test = TransferModel.load(model).results["label"].n_test
        assert out.splitlines() == [f"label accuracy 1.000  {n_test} rows"]
        assert f"{24 - n_test} rows were trained on, and left out" in err


def test_evaluate_json(cli, model, album):
    _, out, _ = cli("evaluate", model, album, "--json", "--include-training")
    found = json.loads(out)
    assert set(found) == {"targets", "seconds", "left_out"}
    assert found["left_out"] == 0
    assert found["targets"]["label"]["n_test"] == 24
    assert found["targets"]["label"]["accuracy"] == 1.0


def test_other_photos_are_all_measured(cli, model, tmp_path):
    photos = tmp_path / "other"
    write_album(photos, each=1)
    for path in photos.rglob("*.png"):
        picture = np.asarray(Image.open(path)).copy()
        picture[:3] = 0
        Image.fromarray(picture).save(path)
    _, out, err = cli("evaluate", model, photos)
    assert out == "label accuracy 1.000  3 rows\n"
    assert "left out" not in err


def test_evaluate_without_labels_or_without_new_rows(refused, model, album):
    assert "no labels for the target 'label'" in refused(1, "evaluate", model, album / "dawn")


def test_a_cache_of_another_spec_is_refused(refused, model, album, tiny, tmp_path, cli):
    cache = tmp_path / "c.h5"
    assert cli("embed", album, cache, *tiny[:4], "--image-size", "40")[0] == 0
    said = refused(1, "evaluate", model, cache)
    assert "holds embeddings of another spec: image_size is 40 x 40 here and 32 x 32 there" in said
