"""One finished run and one cache, made once and copied for the tests that change them."""

import shutil

import pytest
from photo_album import write_album

from pipeline.cli import main


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
