"""A sample of what benchmarks/faults.py does: kill -9, look, and the same command again."""

import itertools
import signal

import pytest
from embed_command import ended
from killing import HARM, Kill, drawn, toll_of

from pipeline.cache import PartFolder

SAMPLE = 12


def harm(toll) -> dict:
    return {name: toll[name] for name in HARM if toll[name]}


def test_kills_at_random_moments_and_between_writes_harm_nothing(commands, tmp_path):
    killed = 0
    for turn, kill in enumerate(itertools.islice(drawn(commands, seed=0), SAMPLE)):
        toll = toll_of(kill, commands[kill.command], tmp_path / f"{turn}")
        assert not harm(toll), kill
        killed += toll["kills"]
    assert killed > SAMPLE / 2  # from outside one may come too late


@pytest.mark.parametrize(("manner", "back"), [("before", 10), ("half", 12), ("after", 13)])
def test_a_kill_at_the_end_of_the_merge_harms_nothing(commands, tmp_path, manner, back):
    """The seal is written twice, and its second half makes the file a cache; then the parts go."""
    command = commands["onto a cache"]
    toll = toll_of(
        Kill("onto a cache", moment=command.changes - back, manner=manner),
        command,
        tmp_path / "run",
    )
    assert toll["kills"] == 1
    assert not harm(toll)


def test_a_kill_loses_the_batches_under_way_and_no_more(commands, tmp_path):
    command = commands["from nothing"]
    cache = command.begin(tmp_path / "run")
    child = command.start(cache, tmp_path / "said", moment=command.changes // 2)
    assert ended(child) == -signal.SIGKILL
    finished = len(PartFolder(cache).read().sound)
    assert finished >= 2
    assert ended(command.start(cache, tmp_path / "said")) == 0
    assert f"going on: {finished} of 6 batches are finished" in (tmp_path / "said").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["from nothing", "onto a cache"])
def test_a_kill_in_every_single_write_harms_nothing(commands, tmp_path, name):
    for moment in range(1, commands[name].changes + 1):
        kill = Kill(name, moment=moment, manner="half")
        toll = toll_of(kill, commands[name], tmp_path / f"{moment}")
        assert toll["kills"] == 1
        assert not harm(toll), kill
