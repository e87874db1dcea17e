"""One finished run and one cache, made once and copied for the tests that change them."""

import shutil

import pytest
from photo_album import write_album, write_tiny_weights

from pipeline.cli import main


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Options for a network that takes no time."""
    weights = write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    return ["--backbone", "timm/test_resnet", "--weights", str(weights), "--image-size", "32"]


@pytest.fixture(scope="session")
def album(tmp_path_factory):
    """Photos of three kinds, and one file that is none."""
    folder = write_album(tmp_path_factory.mktemp("album") / "photos")
    (folder / "noon" / "broken.png").write_bytes(b"no picture at all")
    return folder


@pytest.fixture(scope="session")
def first_run(album, tiny, tmp_path_factory):
    """A folder that `pipeline run` has finished."""
    out = tmp_path_factory.mktemp("first") / "out"
    assert main(["run", str(album), "--out", str(out), *tiny, "--head", "ridge"]) == 0
    return out


@pytest.fixture
def finished(first_run, tmp_path):
    """The same folder, to be changed."""
    return shutil.copytree(first_run, tmp_path / "out")


@pytest.fixture
def cli(capsys):
    """Call the command line, and give exit code, standard output and standard error."""

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def refused(cli):
    """Call the command line, expect one message and no data, and give the message."""

    def call(code, *words):
        found, out, err = cli(*words)
        assert found == code, err
        assert out == ""
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert err.count("pipeline: ") == 1, err
        return last.removeprefix("pipeline: ") if last.startswith("pipeline: ") else err

    return call
