"""Stands here so that every test can import the helpers in this folder."""

import os

# Tests run side by side on few processors: libraries that would start a thread on each only
# get in each other's way. Read by them when they are imported, so it is set before.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session", autouse=True)
def _graphs_of_this_run(tmp_path_factory):
    """Keep prepared graphs out of the user's cache folder, and those of a user out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_CACHE_DIR", str(tmp_path_factory.mktemp("graphs")))
        yield
