"""Data on standard output, talk on standard error, and no name that steers a terminal."""

import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pipeline.cache import EmbeddingStore
from pipeline.cli import main
from pipeline.cli.talk import printable, show_line


def test_control_characters_and_line_breaks_are_escaped(capsys):
    said = printable("a\x1b[2Jb\u202ec\x07\nd\r\u2028\udce9")
    assert said == "a\\x1b[2Jb\\u202ec\\x07\\nd\\r\\u2028\\udce9"
    show_line("one\ntwo")
    assert capsys.readouterr().out == "one\\ntwo\n"
    assert printable("Käuze, 猫.png 🦉") == "Käuze, 猫.png 🦉"


def test_names_of_strangers_cannot_steer_the_terminal(cli, refused, tmp_path):
    assert "\\x1b[2J" in refused(1, "info", tmp_path / "x\x1b[2Jy")
    code, out, _ = cli("predict", "m\x1b]0;t\x07", "x")
    assert (code, out) == (1, "")


def test_a_line_break_in_a_name_makes_no_line_of_its_own(cli, album, tiny, tmp_path):
    """Neither in an error, nor in its list of files, nor in what was understood or done."""
    forged = "x\npipeline: all is well.png"
    folder = shutil.copytree(album, tmp_path / "x\npipeline: understood")
    (folder / "dawn").rename(folder / "x\npipeline: a class")
    (folder / "noon" / forged).write_bytes(b"broken")
    words = ["embed", folder, tmp_path / "c.h5", *tiny]
    code, out, err = cli(*words, "--on-bad-input", "fail")
    assert (code, out) == (1, "")
    assert [line for line in err.splitlines() if line.startswith("pipeline: ")] == [
        "pipeline: 2 inputs cannot be embedded:"
    ]
    assert "  noon/x\\npipeline: all is well.png: not a picture: " in err
    assert "  noon/broken.png: not a picture: " in err
    for call in (words, ["info", tmp_path / "c.h5"], ["info", tmp_path / forged]):
        _, out, err = cli(*call)
        lines = (out + err).splitlines()
        assert sum(line.startswith("pipeline: ") for line in lines) == (call[1].name == forged)


def test_a_terminal_without_the_letters_gets_escapes(monkeypatch, finished):
    """`LANG=C` and old Windows consoles: an owl in a name is no error."""
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    target = finished / "owl 🦉.h5"
    os.rename(finished / "cache.h5", target)
    assert main(["embed", str(finished / "none"), str(target)]) == 1
    assert main(["info", str(target)]) == 0
    show_line("🦉")
    narrow.flush()
    assert narrow.buffer.getvalue().endswith(b"\\U0001f989\n")


def test_a_bug_is_ours_and_says_how_to_report_it(refused, finished, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the moon is made of cheese")

    monkeypatch.setattr(EmbeddingStore, "open", broken)
    said = refused(70, "info", finished / "cache.h5")
    assert "a bug of ours: RuntimeError: the moon is made of cheese" in said
    assert "Please report it, with the traceback that PIPELINE_DEBUG=1 shows." in said


def test_the_system_refusing_is_no_bug(refused, finished, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "/somewhere/cache.h5")

    monkeypatch.setattr(EmbeddingStore, "open", full)
    said = refused(1, "info", finished / "cache.h5")
    assert "/somewhere/cache.h5: No space left on device." in said


def test_the_traceback_is_there_for_those_who_ask(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_DEBUG", "1")
    for words, code in ((["info", tmp_path / "x"], 1), (["runn"], 2)):
        found, out, err = cli(*words)
        assert (found, out) == (code, "")
        assert err.startswith("Traceback")
        assert err.splitlines()[-1].startswith("pipeline: ")


def test_a_command_leaves_the_logging_of_a_program_as_it_was(cli, caplog):
    log = logging.getLogger("pipeline")
    before = log.handlers[:], log.level, log.propagate
    cli("runn")
    assert (log.handlers, log.level, log.propagate) == before


def test_the_machinery_of_libraries_does_not_talk(cli):
    cli("--version")
    assert logging.getLogger("huggingface_hub").getEffectiveLevel() == logging.ERROR


def test_a_closed_pipe_is_no_error():
    """`pipeline backbones | head -1`."""
    program = "import sys; from pipeline.cli import main; sys.exit(main(['backbones']))"
    read, write = os.pipe()
    os.close(read)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, err = child.communicate()
    assert (child.returncode, err) == (0, b"")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_130_and_the_same_command_goes_on(album, tiny, tmp_path, cli, sent):
    """The signal comes when the first parts lie on the disk, or before."""
    cache = tmp_path / "a cache.h5"
    words = ["embed", str(album), str(cache), *tiny]
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words], stderr=subprocess.PIPE, text=True
    )
    first = child.stderr.readline()
    assert first.startswith("25 images, 3 classes")
    time.sleep(0.3)
    child.send_signal(sent)
    _, err = child.communicate()
    assert child.returncode == 130, err
    assert "Traceback" not in err
    said = err.splitlines()[-1]
    assert said.startswith("pipeline: interrupted. What is embedded is kept; to go on: ")
    assert f"'{cache}'" in said
    code, out, err = cli(*words, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 24), err


@pytest.mark.parametrize("command", ["predict", "train"])
def test_ctrl_c_before_anything_was_written(refused, monkeypatch, finished, command, album):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.model.TransferModel.load", interrupted)
    monkeypatch.setattr(EmbeddingStore, "open", interrupted)
    words = {
        "predict": [finished / "model.safetensors", album],
        "train": [finished / "cache.h5", "m"],
    }
    said = refused(130, command, *words[command])
    assert said == "interrupted. Nothing was written."
