"""Progress: a bar on a terminal, now and then a line elsewhere, silence by default."""

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from small_world import environment

import pipeline.progress
from pipeline.progress import Progress, duration


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture
def time(monkeypatch):
    """A clock that the test winds."""

    class Wound:
        now = 1000.0

        def perf_counter(self):
            return self.now

    wound = Wound()
    monkeypatch.setattr(pipeline.progress, "time", wound)
    return wound


def work(progress, time, seconds, count):
    time.now += seconds
    progress.advance(count)


def test_work_of_more_than_a_minute_is_announced_once_then_a_line_every_half_minute(lines, time):
    with Progress(10_000, "images", visible=True) as progress:
        work(progress, time, 1, 10)
        assert lines.messages == []
        work(progress, time, 3, 30)
        assert lines.messages == ["40 of 10,000 images, 10 a second, about 16 min 36 s left"]
        for _ in range(29):
            work(progress, time, 1, 10)
        assert len(lines.messages) == 1
        work(progress, time, 1, 20)
        work(progress, time, 1, 10)
    assert lines.messages[1:] == ["350 of 10,000 images, 10.3 a second, about 15 min 37 s left"]


def test_short_work_is_not_announced(lines, time):
    with Progress(500, "images", visible=True) as progress:
        work(progress, time, 4, 40)
        work(progress, time, 20, 400)
    assert lines.messages == []


def test_a_slow_rate_is_not_rounded_to_nothing(lines, time):
    with Progress(100, "images", visible=True) as progress:
        work(progress, time, 10, 1)
    assert lines.messages == ["1 of 100 images, 0.1 a second, about 16 min 30 s left"]


def test_nothing_done_gives_no_line(lines, time):
    with Progress(100, "images", visible=True) as progress:
        work(progress, time, 100, 0)
    assert lines.messages == []


def test_it_is_silent_unless_asked_for(lines, time, capsys):
    with Progress(10_000, "images", visible=False) as progress:
        work(progress, time, 100, 10)
        work(progress, time, 100, 10)
    assert progress.done == 20
    assert lines.messages == []
    assert capsys.readouterr() == ("", "")


def test_a_log_file_gets_no_bar(time, capsys):
    with Progress(10, "images", visible=True) as progress:
        work(progress, time, 1, 10)
    assert capsys.readouterr() == ("", "")


BAR = """
import time
from pipeline.progress import Progress
with Progress(40, "images", visible=True) as progress:
    for _ in range(4):
        progress.advance(10)
        time.sleep(0.15)
"""


@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal_there_is_a_bar_that_goes_away(colour):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    variables = environment() | {"TERM": "xterm"} | ({} if colour else {"NO_COLOR": "1"})
    child = subprocess.Popen(
        [sys.executable, "-c", BAR], stderr=theirs, stdout=subprocess.PIPE, env=variables
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    out, _ = child.communicate()
    os.close(ours)
    assert (child.returncode, out) == (0, b"")
    text = seen.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "20/40 images" in plain
    assert re.search(r"\d/s", plain)
    assert bool(re.search(r"\x1b\[3[1-7]m", text)) == colour
    assert text.endswith("\x1b[2K")  # wiped


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (7300, "2 h 1 min"),
    ],
)
def test_durations_are_short_and_never_sixty(seconds, words):
    assert duration(seconds) == words
