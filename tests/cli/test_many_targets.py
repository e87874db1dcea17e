"""Several `--target`: one run, one model, a head and a figure for each."""

import csv
import json
import tomllib

import numpy as np
import pytest
from photo_album import KINDS, skies
from PIL import Image

from pipeline.cli import main
from pipeline.model import TransferModel

TARGETS = ["--target", "sky", "--target", "grey"]


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """Photos with three columns, some of whose cells are empty."""
    folder = tmp_path_factory.mktemp("table")
    photos, kinds = skies(10)
    lines = ["path,sky,grey,tone"]
    for place, (photo, kind) in enumerate(zip(photos, kinds, strict=True)):
        Image.fromarray(photo).save(folder / f"{place:02}.png")
        sky = "" if place % 5 == 4 else kind
        grey = "" if place % 3 == 2 else f"{photo.mean():.3f}"
        lines.append(f"{place:02}.png,{sky},{grey},{'warm' if kind == 'dawn' else 'cold'}")
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    return folder / "photos.csv"


@pytest.fixture(scope="session")
def several(table, tiny, tmp_path_factory):
    """A folder that a run with two targets has finished."""
    out = tmp_path_factory.mktemp("several") / "out"
    assert main(["run", str(table), "--out", str(out), *tiny, *TARGETS]) == 0
    return out


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_run_leaves_one_model_and_a_line_for_each_held_out_label(several, table):
    model = TransferModel.load(several / "model.safetensors")
    assert list(model.heads) == ["sky", "grey"]
    header, *rows = rows_of(several / "predictions.csv")
    assert header == ["id", "target", "label", "prediction"]
    given = {
        row[0]: dict(zip(("sky", "grey"), row[1:3], strict=True)) for row in rows_of(table)[1:]
    }
    held_out = {name for name, part in zip(model.split.ids, model.split.parts, strict=True)
                if part == "test"}  # fmt: skip
    expected = [
        (name, target) for name in given if name in held_out
        for target in ("sky", "grey") if given[name][target]
    ]  # fmt: skip
    assert [tuple(row[:2]) for row in rows] == expected
    for name, target, label, predicted in rows:
        if target == "sky":
            assert label == given[name]["sky"]
            assert predicted in KINDS
        else:
            assert float(label) == float(given[name]["grey"])
            assert abs(float(predicted) - float(label)) < 40
    metrics = json.loads((several / "metrics.json").read_text())
    assert list(metrics["targets"]) == ["sky", "grey"]
    assert {"accuracy", "n_train"} <= set(metrics["targets"]["sky"])
    assert {"r2", "n_train"} <= set(metrics["targets"]["grey"])
    assert metrics["targets"]["grey"]["n_test"] == sum(target == "grey" for _, target in expected)


def test_the_configuration_names_them_and_gives_the_same_bytes(several, table, cli, tmp_path):
    config = tomllib.loads((several / "config.toml").read_text())
    assert config["train"]["target"] == ["sky", "grey"]
    out = tmp_path / "again"
    code, _, err = cli("run", table, "--out", out, "--config", several / "config.toml")
    assert code == 0, err
    for name in ("model.safetensors", "predictions.csv"):
        assert (out / name).read_bytes() == (several / name).read_bytes()


def test_the_last_lines_are_a_figure_for_each_target_the_first_one_last(
    several, table, tiny, cli, tmp_path
):
    code, out, err = cli("train", several / "cache.h5", tmp_path / "m", *TARGETS)
    assert code == 0
    *_, grey, sky = out.splitlines()
    assert grey.startswith("grey r2 ")
    assert sky.startswith("sky accuracy ")
    assert sky.endswith(f"  {tmp_path / 'm'}")
    said = err.splitlines()
    for target in ("sky", "grey"):
        assert any(
            line.startswith(f"{target}: ") and "held-out rows, seed 0" in line for line in said
        )
        assert any(line.startswith(f"compared for {target} on rows left out") for line in said)
    code, out, _ = cli("run", table, "--out", several, *tiny, *TARGETS)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [["grey", "r2"], ["sky", "accuracy"]]


@pytest.mark.parametrize(
    ("text", "targets"),
    [("'sky'", ["sky"]), ("['sky']", ["sky"]), ("['grey', 'sky']", ["grey", "sky"])],
)
def test_a_file_names_one_target_or_a_list(text, targets, several, table, tiny, cli, tmp_path):
    (tmp_path / "mine.toml").write_text(
        f"[train]\ntarget = {text}\nhead = 'ridge'\nfusion = 'last'\n"
    )
    code, out, err = cli(
        "run", table, "--out", tmp_path / "out", *tiny, "--config", tmp_path / "mine.toml", "--json"
    )
    assert code == 0, err
    assert list(json.loads(out)["targets"]) == targets


def test_predict_writes_a_line_for_each_input_and_target(several, table, cli, tmp_path):
    code, _, err = cli("predict", several / "model.safetensors", table, "--out", tmp_path / "p.csv")
    assert code == 0, err
    header, *rows = rows_of(tmp_path / "p.csv")
    assert header == ["id", "target", "prediction"]
    assert len(rows) == 60
    assert [row[1] for row in rows] == ["sky", "grey"] * 30
    predicted = TransferModel.load(several / "model.safetensors").predict(table)
    assert [row[2] for row in rows[::2]] == predicted["sky"].tolist()
    np.testing.assert_array_equal([float(row[2]) for row in rows[1::2]], predicted["grey"])


def test_evaluate_measures_each_on_its_own_labels(several, table, cli):
    code, out, _ = cli("evaluate", several / "model.safetensors", several / "cache.h5", "--json")
    assert code == 0
    ours = json.loads(out)["targets"]
    theirs = json.loads((several / "metrics.json").read_text())["targets"]
    for target, figure in (("sky", "accuracy"), ("grey", "r2")):
        assert ours[target]["n_test"] == theirs[target]["n_test"]
        assert ours[target][figure] == pytest.approx(theirs[target][figure], rel=1e-6)


def test_another_set_of_targets_is_another_configuration(several, table, tiny, refused):
    said = refused(1, "run", table, "--out", several, *tiny, "--target", "sky")
    assert "target is sky here and ['sky', 'grey'] there" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--target", "sky", "--target", "sky"], "target 'sky' is named twice"),
        (["--target", "sky", "--target", "gray"], "unknown target 'gray'. Did you mean 'grey'?"),
        ([*TARGETS, "--head", "lda"], "target 'grey': head lda predicts classes"),
        (["--target", "sky", "--target", "tone", "--target-kind", "tone=multilabel", "--fusion",
          "late"], "target 'tone': fusion late is found by a ridge"),
    ],
)  # fmt: skip
def test_what_does_not_suit_one_of_them_is_refused_before_anything_is_embedded(
    refused, table, tiny, tmp_path, words, sentence
):
    said = refused(1, "run", table, "--out", tmp_path / "out", *tiny, *words)
    assert said.startswith(sentence)
    assert not (tmp_path / "out" / "cache.h5").exists()
