"""Traces: the files of a tuning, which state is gone on from, and what is left."""

import copy
import csv
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tuning_world import model_of, striped

from pipeline.config import FinetuneOptions
from pipeline.errors import InputError
from pipeline.finetuning import finetune
from pipeline.finetuning.rows import find_rows
from pipeline.finetuning.traces import Traces, refuse_place

OPTIONS = FinetuneOptions(blocks=2, views=1, max_epochs=3)


@pytest.fixture(scope="module")
def samples():
    return striped(48)


@pytest.fixture(scope="module")
def model(samples):
    return model_of(samples)


@pytest.fixture
def traces(tmp_path):
    return Traces(tmp_path / "own.model", "key", kept=True)


def test_files_are_named_after_the_model(traces, tmp_path):
    names = [path.name for path in (traces.boundary, traces.state, traces.log, traces.picture)]
    assert names == [
        "own.model.boundary.h5", "own.model.state.pt", "own.model.log.csv", "own.model.log.png",
    ]  # fmt: skip
    assert traces.state.parent == tmp_path


def test_a_state_comes_back_as_it_was(traces):
    assert traces.read_state() is None
    state = {"weights": [torch.arange(3.0)], "log": [{"loss": 1.5}], "best_epoch": 2}
    traces.write_state(state)
    found = traces.read_state()
    assert torch.equal(found["weights"][0], torch.arange(3.0))
    assert (found["log"], found["best_epoch"]) == ([{"loss": 1.5}], 2)
    traces.write_state({**state, "best_epoch": 3})
    assert traces.read_state()["best_epoch"] == 3
    assert [path.name for path in traces.state.parent.iterdir()] == ["own.model.state.pt"]


def test_the_state_of_another_tuning_is_not_read(traces):
    traces.write_state({"best_epoch": 2})
    assert dataclasses.replace(traces, key="other").read_state() is None


class Trap:
    """Would run code when it is read."""

    def __reduce__(self):
        return (pytest.fail, ("a state ran code",))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_state_that_was_cut_short_is_not_read(traces, share):
    traces.write_state({"weights": torch.arange(1000.0)})
    whole = traces.state.read_bytes()
    traces.state.write_bytes(whole[: int(share * len(whole))])
    assert traces.read_state() is None


def test_a_state_of_which_a_single_byte_is_wrong_is_not_read(traces):
    traces.write_state({"weights": torch.arange(100.0)})
    whole = traces.state.read_bytes()
    for place in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        traces.state.write_bytes(damaged)
        assert traces.read_state() is None
    traces.state.write_bytes(whole)
    assert traces.read_state() is not None


@pytest.mark.parametrize(
    "content",
    [b"nothing of ours", pickle.dumps({"key": "other"}, 2), pickle.dumps({"key": Trap()}, 2)],
    ids=["text", "a pickle", "a trap"],
)
def test_a_state_that_somebody_else_wrote_is_not_read(traces, content):
    traces.state.write_bytes(content)
    assert traces.read_state() is None


@pytest.mark.parametrize("value", [[1, 2], torch.arange(3.0), None, "text"])
def test_a_state_that_is_no_state_is_not_read(traces, value):
    torch.save(value, traces.state)
    assert traces.read_state() is None


# What the key depends on


def key(model, samples, options=OPTIONS, path="a.model"):
    return Traces.of(Path(path), model, find_rows(model, samples), options, True).key


def test_the_key_is_the_same_for_the_same_tuning_wherever_it_lies(model, samples, tmp_path):
    assert key(model, samples) == key(model_of(samples), striped(48), path=tmp_path / "c.model")


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": 1}, {"lr": 1e-3}, {"views": 2}, {"max_epochs": 4}, {"decay": 0.5},
        {"seed": 3}, {"gradual": True}, {"flip": "yes"}, {"weighting": "uncertainty"},
        {"batch_size": "8"}, {"no_boundary_cache": True},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_changes_it(model, samples, change):
    assert key(model, samples, dataclasses.replace(OPTIONS, **change)) != key(model, samples)


def test_so_do_labels_rows_split_head_and_network(model, samples):
    known = {key(model, samples)}
    labels = list(samples.columns["label"])
    labels[samples.ids.index(model.split.train_ids[0])] = "right"
    labels[samples.ids.index(model.split.train_ids[1])] = "left"
    changed = dataclasses.replace(samples, columns={"label": np.array(labels, object)})
    known.add(key(model, changed))
    known.add(key(model, samples.subset(np.arange(48)[::-1])))
    known.add(key(model_of(samples, seed=1), samples))
    known.add(key(model_of(samples, head="logistic"), samples))
    other = copy.copy(model)
    (spec,) = model.specs.values()
    other.specs = {"own": dataclasses.replace(spec, weights_digest="f" * 32)}
    known.add(key(other, samples))
    assert len(known) == 6


# What is left


def test_nothing_but_the_log_is_left_and_it_tells_every_epoch(model, samples, tmp_path):
    beside = tmp_path / "own.model"
    tuned = finetune(model, samples, 2, beside=beside, views=1, max_epochs=3, lr=0.01)
    assert {path.name for path in tmp_path.iterdir()} == {"own.model.log.csv", "own.model.log.png"}
    with open(f"{beside}.log.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["epoch", "loss", "validation_loss", "accuracy", "rate", "seconds"]
    assert len(rows) == len(tuned.tuning.epochs) == 3
    for row, one in zip(rows, tuned.tuning.epochs, strict=True):
        told = one.epoch
        assert [float(cell) for cell in row[:5]] == [
            told.number, told.loss, told.validation_loss, one.accuracy, told.lr,
        ]  # fmt: skip
        assert float(row[5]) == pytest.approx(told.seconds, abs=1e-3)
    with Image.open(f"{beside}.log.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_without_a_place_nothing_is_left_anywhere(model, samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    finetune(model, samples, 2, views=1, max_epochs=2)
    assert list(tmp_path.iterdir()) == []


def test_a_tuning_of_other_options_does_not_go_on_from_a_state_that_stands_there(
    model, samples, tmp_path
):
    beside = tmp_path / "own.model"
    own = Traces.of(beside, model, find_rows(model, samples), OPTIONS, True)
    own.write_state({"nonsense": True})
    tuned = finetune(model, samples, 2, beside=beside, views=1, max_epochs=2)
    assert [one.epoch.number for one in tuned.tuning.epochs] == [1, 2]
    assert not own.state.exists()


@pytest.mark.parametrize(
    ("place", "wrong"),
    [("here", "is a folder"), ("gone/m.model", "lies in a folder that does not exist")],
)
def test_a_place_where_no_model_can_be_written(tmp_path, place, wrong):
    (tmp_path / "here").mkdir()
    with pytest.raises(InputError) as caught:
        refuse_place(tmp_path / place)
    assert str(caught.value) == (
        f"cannot write the model {tmp_path / place}: it {wrong}. Give the path of a file."
    )


def test_a_folder_that_takes_no_files_is_known_before_any_row_is_read(model, samples):
    place = Path("/proc/own.model")
    if not place.parent.is_dir():
        pytest.skip("no folder here refuses everybody")
    unread = samples.subset(np.arange(2))  # lacks rows, which is found out later
    with pytest.raises(InputError) as caught:
        finetune(model, unread, beside=place)
    said = str(caught.value)
    assert said.startswith(f"cannot write the model {place}: its folder takes no files (")
    assert said.endswith("). Give the path of a file in another one.")


def test_what_is_left_is_listed_and_removed(model, samples, tmp_path):
    own = Traces.of(tmp_path / "own.model", model, find_rows(model, samples), OPTIONS, True)
    assert own.left() == []
    own.write_state({"nonsense": True})
    assert own.left() == [own.state]
    own.boundary.touch()
    assert own.left() == [own.state, own.boundary]
    own.remove()
    assert own.left() == list(tmp_path.iterdir()) == []
