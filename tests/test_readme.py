"""The README is a manual: what it says to type works, here and now."""

import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
BASH = [block for language, block in BLOCKS if language == "bash"]
PYTHON = [block for language, block in BLOCKS if language == "python"]
LAST_LINE = re.compile(r"accuracy (0\.\d{3}|1\.000)  out/model\.safetensors")


def pipeline_lines(block: str) -> list[list[str]]:
    """The words behind `pipeline`, for every line that calls it."""
    words = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [line[1:] for line in words if line and Path(line[0]).name == "pipeline"]


@pytest.fixture
def at_a_clone(tmp_path, monkeypatch):
    """Stand where a user stands after `git clone`, without writing into this one."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_block_sets_up_and_runs_the_main_job_the_second_the_tests():
    assert pipeline_lines(BASH[0]) == [["run", "data/digits", "--out", "out"]]
    assert "-m venv .venv" in BASH[0]
    assert "-m venv .venv" in BASH[1]
    assert "pytest" in BASH[1]
    assert not pipeline_lines(BASH[1])


@pytest.mark.parametrize("block", BASH[:2], ids=["first", "second"])
def test_the_two_commands_install_into_a_virtual_environment_alone(block):
    for line in block.splitlines():
        assert line.startswith(("python3 -m venv", ".venv/bin/")), line


def test_every_pipeline_line_is_a_command_line_that_exists(capsys):
    """Of every block, whatever its language: its flags are those of the help."""
    for language, block in BLOCKS:
        if language not in ("bash", "text", "console", ""):
            continue
        for command, *words in pipeline_lines(block):
            assert main([command, "--help"]) == 0, command
            help_page = capsys.readouterr().out
            for flag in [word.partition("=")[0] for word in words if word.startswith("--")]:
                assert re.search(rf"{flag}\b", help_page), f"pipeline {command} has no {flag}"


@pytest.mark.pretrained
def test_the_main_job_runs_as_it_stands(at_a_clone, capsys):
    for words in pipeline_lines(BASH[0]):
        assert main(words) == 0
    said = LAST_LINE.fullmatch(capsys.readouterr().out.splitlines()[-1])
    assert said is not None
    shown = next(block for language, block in BLOCKS if language == "text")
    promised = LAST_LINE.fullmatch(shown.splitlines()[-1])
    assert promised is not None, "the README shows another end than the program"
    assert abs(float(said[1]) - float(promised[1])) < 0.03
    assert (at_a_clone / "out" / "model.safetensors").is_file()


@pytest.mark.pretrained
def test_the_python_door_opens_as_it_stands(at_a_clone, capsys):
    exec(compile(PYTHON[0], "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[-1]) > 0.8
    assert (at_a_clone / "digits.safetensors").is_file()
    exec(compile(PYTHON[1], "README.md", "exec"), {})
    assert f"# {capsys.readouterr().out.splitlines()[-1]}\n" in PYTHON[1]
    assert (at_a_clone / "digits.onnx").is_file()
