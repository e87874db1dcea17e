"""What tests of several wings start from; helpers to import lie beside this file."""

import os

# Tests run side by side on few processors: libraries that would start a thread on each only
# get in each other's way. Read by them when they are imported, so it is set before.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from photo_album import write_tiny_weights

from pipeline.cli import main


@pytest.fixture(scope="session", autouse=True)
def _graphs_of_this_run(tmp_path_factory):
    """Keep prepared graphs out of the user's cache folder, and those of a user out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_CACHE_DIR", str(tmp_path_factory.mktemp("graphs")))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Options for a network that takes no time."""
    weights = write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    return ["--backbone", "timm/test_resnet", "--weights", str(weights), "--image-size", "32"]


@pytest.fixture
def cli(capsys):
    """Call the command line, and give exit code, standard output and standard error."""

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
