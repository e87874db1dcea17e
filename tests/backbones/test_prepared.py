"""Prepared graphs: found by what shapes them, damaged ones made anew, never a number changed."""

import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.backbones import PreparedGraph, load_backbone, prepared_engine
from pipeline.backbones.engines import make_engine
from pipeline.backbones.prepared import graph_folder
from pipeline.spec import Preprocessing

TAPS = ("layer1", "features")


@pytest.fixture
def graphs(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(tmp_path))
    return tmp_path / "graphs"


@pytest.fixture
def backbone():
    return load_backbone("timm/test_resnet", weights=None)


def place(backbone, taps=TAPS, precision="float32"):
    return PreparedGraph(
        backbone.weights_digest, backbone.preprocess, backbone.pooling, taps, precision
    )


class Eigenvalues(nn.Module):
    """OpenVINO has no such operation."""

    def forward(self, pictures):
        return torch.linalg.eigvalsh(pictures.mean(1) + pictures.mean(1).mT)


def pictures(n=3):
    return np.random.default_rng(1).integers(0, 256, (n, 160, 160, 3), np.uint8)


def test_a_kept_graph_gives_the_same_numbers_bit_for_bit(graphs, backbone):
    made = backbone.engine(TAPS, device="cpu", precision="float32").embed(pictures())
    kept = prepared_engine(place(backbone), "cpu").embed(pictures())
    unkept = load_backbone("timm/test_resnet", weights=None)
    alone = unkept.engine(TAPS, device="cpu", precision="float32", forward_cache=False)
    np.testing.assert_array_equal(kept, made)
    np.testing.assert_array_equal(alone.embed(pictures()), made)


def test_what_shapes_a_graph_decides_its_place(graphs, backbone):
    backbone.engine(TAPS, device="cpu", precision="float32")
    other = load_backbone("timm/test_resnet", weights=None, image_size=96)
    assert prepared_engine(place(other), "cpu") is None
    assert prepared_engine(place(backbone, ("layer1",)), "cpu") is None
    assert prepared_engine(place(backbone), "cuda") is None
    assert prepared_engine(place(backbone), "cpu") is not None


@pytest.mark.parametrize("name", ["graph.bin", "graph.xml", "graph.json"])
def test_a_damaged_graph_is_made_anew(graphs, backbone, name, caplog):
    expected = backbone.engine(TAPS, device="cpu", precision="float32").embed(pictures())
    (folder,) = graphs.iterdir()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    if name == "graph.json":
        (folder / name).write_text("[" * 100_000)
    with caplog.at_level(logging.WARNING):
        assert prepared_engine(place(backbone), "cpu") is None
    assert "is damaged: it is made anew" in caplog.text
    again = load_backbone("timm/test_resnet", weights=None)
    engine = again.engine(TAPS, device="cpu", precision="float32")
    np.testing.assert_array_equal(engine.embed(pictures()), expected)
    assert prepared_engine(place(backbone), "cpu") is not None


def test_a_folder_that_cannot_be_made_is_said_and_nothing_else(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(tmp_path / "file"))
    backbone = load_backbone("timm/test_resnet", weights=None)
    with caplog.at_level(logging.WARNING):
        vectors = backbone.engine(TAPS, device="cpu", precision="float32").embed(pictures())
    assert np.isfinite(vectors).all()
    assert "the prepared graph cannot be kept in" in caplog.text


def test_a_module_of_ones_own_is_never_taken_from_the_folder(graphs):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    own = load_backbone(module, name="own", layers=["1"], preprocess=Preprocessing((32, 32)))
    own.engine(device="cpu", precision="float32")
    assert not graphs.exists()


def test_the_facts_say_what_it_is_and_how_far_it_agrees_with_torch(graphs, backbone):
    backbone.engine(TAPS, device="cpu", precision="float32")
    (folder,) = graphs.iterdir()
    facts = json.loads((folder / "graph.json").read_text())
    assert facts["shaped_by"]["weights_digest"] == backbone.weights_digest
    assert facts["shaped_by"]["layers"] == list(TAPS)
    assert facts["shaped_by"]["processor"]
    assert list(facts["agreement"]) == list(TAPS)
    assert min(facts["agreement"].values()) > 0.99999


def test_a_graph_that_stands_in_the_place_of_another_is_not_trusted(graphs, backbone, caplog):
    backbone.engine(TAPS, device="cpu", precision="float32")
    backbone.engine(("layer1",), device="cpu", precision="float32")
    mine, other = place(backbone).path, place(backbone, ("layer1",)).path
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    assert prepared_engine(place(backbone), "cpu") is None
    assert "is damaged: it is made anew" in caplog.text


def test_a_graph_of_another_processor_has_another_place(graphs, backbone, monkeypatch):
    here = place(backbone).path
    monkeypatch.setattr("pipeline.backbones.prepared.processor_features", lambda: "flags : sse")
    assert place(backbone).path != here


def test_that_a_network_cannot_be_converted_is_kept_too(graphs, caplog):
    spec = {"layers": ["0"], "preprocess": Preprocessing((32, 32))}
    network = load_backbone(nn.Sequential(Eigenvalues()), **spec).network
    found = place(load_backbone(nn.Sequential(Eigenvalues()), **spec), ("0",))
    layers = load_backbone(nn.Sequential(Eigenvalues()), **spec).layers.values()
    for _ in range(2):
        engine = make_engine(
            network, list(layers), device="cpu", precision="float32", prepared=found
        )
        assert engine.name == "eager"
    first, second = caplog.messages
    assert first == second
    assert "No conversion rule found for operations: aten::linalg_eigvalsh" in first
    assert [path.name for path in found.path.iterdir()] == ["graph.json"]
    assert prepared_engine(found, "cpu") is None
    assert len(caplog.messages) == 2  # a verdict without a graph is not a damaged graph


def test_a_kept_graph_runs_without_torch_and_timm(graphs, backbone):
    backbone.engine(TAPS, device="cpu", precision="float32")
    program = f"""
import sys, numpy as np
from pipeline.backbones import PreparedGraph, prepared_engine
from pipeline.spec import Preprocessing
prepared = {place(backbone)!r}
black = np.zeros((2, 160, 160, 3), np.uint8)
assert prepared_engine(prepared, "cpu").embed(black).shape == (2, 128)
assert not {{"torch", "timm", "openvino_telemetry"}} & {{n for n, m in sys.modules.items() if m}}
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_folder_is_the_users_unless_moved(monkeypatch):
    monkeypatch.delenv("PIPELINE_CACHE_DIR")
    assert graph_folder().parts[-2:] == ("transfer-pipeline", "graphs")


def test_a_temporary_folder_without_room_is_said_and_is_no_verdict(graphs, backbone, tmp_path):
    program = f"""
import resource
from pipeline.backbones import load_backbone
from pipeline.errors import BackboneError
backbone = load_backbone("timm/test_resnet", weights=None)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    backbone.engine({TAPS!r}, device="cpu", precision="float32")
except BackboneError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("the converted network cannot be written to ")
    assert done.stdout.endswith("Make room there, or name another temporary folder: TMPDIR.\n")
    assert not place(backbone).path.exists()
