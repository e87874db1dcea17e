"""Surveys: a network that was used before is described without building it."""

import json
import subprocess
import sys

import pytest
import timm
import torch

from pipeline.backbones import describe, load_backbone, survey
from pipeline.backbones.survey import forget

NAME = "timm/test_resnet"


@pytest.fixture
def graphs(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(tmp_path))
    return tmp_path / "graphs"


def described(**options):
    return survey(NAME, **{"weights": "random", "precision": "float32", **options})


def test_a_description_that_was_kept_says_the_same(graphs):
    first = described()
    path = next(graphs.iterdir())
    assert described() == first
    built = load_backbone(NAME, weights=None)
    assert first.spec == built.spec()
    assert dict(first.layers) == built.layers
    assert path.stat().st_size > 500


def test_it_is_read_without_building_the_network(graphs):
    described()
    program = f"""
import sys
from pipeline.backbones import survey
found = survey({NAME!r}, weights="random", precision="float32")
assert list(found.layers)[-1] == "features"
assert not {{"torch", "timm", "torchvision"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "other",
    [
        {"image_size": 96},
        {"pooling": "max"},
        {"resize": "squash"},
        {"weights": "file"},
    ],
)
def test_what_it_follows_from_decides_its_place(graphs, tmp_path, other):
    if "weights" in other:
        torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "w.pt")
        other = {"weights": str(tmp_path / "w.pt")}
    first, second = described(), described(**other)
    assert first.spec != second.spec
    assert described(**other) == second
    assert described() == first


def test_what_the_file_and_the_machine_decide_is_asked_each_time(graphs):
    described()
    assert described(store_dtype="float32").spec.store_dtype == "float32"
    assert described(precision="bfloat16").spec.precision == "bfloat16"
    assert len(list(graphs.iterdir())) == 2  # by what was asked, and by what became of it


def test_another_file_under_the_same_name_is_another_network(graphs, tmp_path):
    path = tmp_path / "weights.pt"
    specs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
        specs.append(described(weights=str(path)).spec)
    assert specs[0].weights_digest != specs[1].weights_digest


@pytest.mark.parametrize("damage", ["{", "[]", '{"facts": {}, "digest": "00"}'])
def test_a_damaged_description_is_made_anew(graphs, damage, caplog):
    first = described()
    for path in graphs.iterdir():
        path.write_text(damage)
    assert described() == first
    (message,) = caplog.messages
    assert message.endswith(".json is damaged: it is made anew")
    for path in graphs.iterdir():
        assert json.loads(path.read_text())["facts"]["spec"]["backbone"] == NAME


def test_what_became_of_the_options_finds_the_description_too(graphs):
    first = described()
    preprocess = first.spec.preprocess
    shape = {"pooling": first.spec.pooling, "resize": preprocess.resize}
    before = sorted(graphs.iterdir())
    assert described(image_size=preprocess.image_size[0], **shape) == first
    assert sorted(graphs.iterdir()) == before


def test_a_changed_value_is_damage(graphs, caplog):
    first = described()
    for path in graphs.iterdir():
        path.write_text(path.read_text().replace(first.spec.weights_digest, "0" * 32))
    assert described() == first
    assert "is damaged: it is made anew" in caplog.text


def test_without_the_forward_cache_nothing_is_kept(graphs):
    described(forward_cache=False)
    assert not graphs.exists()


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(tmp_path / "file"))
    assert described().spec == load_backbone(NAME, weights=None).spec()


def test_descriptions_of_weights_that_are_gone_are_forgotten(graphs):
    digest = described().spec.weights_digest
    forget("0" * 32)
    assert list(graphs.iterdir())
    forget(digest)
    assert not list(graphs.iterdir())


def test_a_bundled_backbone_stands_in_the_catalog(graphs):
    assert describe(precision="float32").backbone == "efficientnet_lite0"
    assert not graphs.exists()


def test_a_description_in_the_place_of_another_is_not_trusted(graphs, caplog):
    described(pooling="max")
    other = next(graphs.iterdir()).read_text()
    for path in graphs.iterdir():
        path.unlink()
    first = described()
    for path in graphs.iterdir():
        path.write_text(other)
    assert described() == first
    assert "is damaged: it is made anew" in caplog.text
