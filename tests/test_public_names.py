"""The public names: what `from pipeline import ...` gives, and nothing that is not meant."""

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent
NAMES = [name for name in pipeline.__all__ if name != "__version__"]


def twins() -> dict[str, str]:
    """Home of every name that type checkers see, read from the source."""
    found = {}
    for node in ast.parse((PACKAGE / "__init__.py").read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                assert isinstance(statement, ast.ImportFrom)
                found |= {alias.name: statement.module for alias in statement.names}
    return found


def test_the_list_is_sorted_and_complete():
    assert pipeline.__all__ == sorted(pipeline.__all__)
    assert set(pipeline.__all__) == {*pipeline._HOMES, "__version__"}
    assert dir(pipeline) == pipeline.__all__


def test_type_checkers_see_what_is_loaded():
    assert twins() == pipeline._HOMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_exported_by_its_home(name):
    home = sys.modules.get(pipeline._HOMES[name]) or __import__(
        pipeline._HOMES[name], fromlist=[name]
    )
    assert name in home.__all__
    assert getattr(pipeline, name) is getattr(home, name)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_explained_with_an_example(name):
    text = inspect.getdoc(getattr(pipeline, name)) or ""
    assert len(text.splitlines()[0]) > 20, f"{name} needs a summary"
    assert doctest.DocTestParser().get_examples(text), f"{name} needs an example"


def test_no_name_is_that_of_a_module():
    modules = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert not modules & set(pipeline.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pipeline' has no attribute 'Trainer'"):
        pipeline.Trainer  # noqa: B018


def test_the_import_loads_nothing_heavy():
    program = "import pipeline, sys; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {"torch", "sklearn", "numpy", "h5py", "rich", "cyclopts"}


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert pipeline.__version__ == version("transfer-pipeline")
