from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Makes files below a folder: listing reads no content, so they are empty."""

    def make(*names: str, root: str = "photos") -> Path:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return folder

    return make
