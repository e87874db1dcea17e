"""One world for all tests here: pictures, and two commands with their undisturbed ends."""

import pytest
from embed_command import new_world


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return new_world(tmp_path_factory.mktemp("world"))
