"""The manual: short, complete, and there at once."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = ["run", "embed", "train", "finetune", "predict", "evaluate", "backbones", "info"]
HEAVY = {"torch", "sklearn", "scipy", "timm", "h5py", "pyarrow", "matplotlib", "openvino"}


def entries(page: str) -> dict[str, str]:
    """Name and description of every argument and option of a page."""
    found = re.findall(r"^  (\S.*)\n((?:      .*\n)+)", page, re.MULTILINE)
    return {name.split()[0]: " ".join(text.split()) for name, text in found}


def test_no_command_is_a_call_for_help(cli):
    code, out, err = cli()
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if re.match(r"  \w", line)][:8] == COMMANDS
    assert "pipeline run FOLDER --out out" in out
    assert cli("--help")[1] == out
    assert cli("-h")[1] == out


def test_the_version(cli):
    from pipeline.version import __version__

    assert cli("--version") == (0, f"transfer-pipeline {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_a_sentence_and_its_default(cli, command):
    code, out, err = cli(command, "--help")
    assert (code, err) == (0, "")
    described = entries(out)
    assert described
    for name, text in described.items():
        assert len(text.split()) >= 3, f"{command} {name}: {text}"
        assert re.search(r"\[(required|default: [^\]]+)\]$", text), f"{command} {name}: {text}"
        assert "None" not in text
        assert "()" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_begins_as_the_list_says(cli, command):
    """The list is known before the command is imported; its docstring must say the same."""
    from importlib import import_module

    from pipeline.cli.app import _COMMANDS

    module, said = _COMMANDS[command]
    text = getattr(import_module(f"pipeline.cli.{module}"), command).__doc__
    assert text.splitlines()[0] == said.splitlines()[0]
    page = cli(command, "--help")[1]
    for paragraph in said.split("\n\n"):
        assert paragraph in " ".join(page.split())


def test_pages_fit_the_terminal(cli, monkeypatch):
    for columns in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        for command in COMMANDS:
            page = cli(command, "--help")[1]
            body = page.partition("\n\n")[2]  # the usage line stays whole, to be copied
            assert max(map(len, body.splitlines())) <= min(columns, 100)


def test_options_are_those_of_the_python_door(cli):
    """One schema: flags, TOML keys and fields of the options have the same names."""
    import dataclasses

    from pipeline.config import EmbedOptions, TrainOptions

    page = entries(cli("run", "--help")[1])
    for options in (EmbedOptions, TrainOptions):
        for field in dataclasses.fields(options):
            assert f"--{field.name.replace('_', '-')}" in page


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["--version"], 0),
        (["run", "--help"], 0),
        (["embed", "--help"], 0),
        (["train", "--help"], 0),
        (["predict", "--help"], 0),
        (["runn"], 2),
        (["run", "x", "--out", "o", "--backbon", "y"], 2),
        (["embed", "x"], 2),
        (["train", "a", "b", "--seed", "x"], 2),
        (["info", "missing.h5"], 1),
        (["run", "missing", "--out", "o"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_answers_come_at_once_and_load_nothing_heavy(words, code, tmp_path):
    program = (
        "import sys\nfrom pipeline.cli import main\n"
        f"code = main({words!r})\nprint(sorted(sys.modules), file=sys.stderr)\nsys.exit(code)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert time.perf_counter() - began < 3
    assert done.returncode == code, done.stderr
    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert not loaded & HEAVY


def test_the_command_and_the_module_are_one(tmp_path):
    script = Path(sys.executable).parent / "pipeline"
    done = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path)
        for command in ([sys.executable, "-m", "pipeline"], [script])
    ]
    assert done[0].stdout == done[1].stdout != ""
    assert [one.returncode for one in done] == [0, 0]
