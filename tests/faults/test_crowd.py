"""Many at once, a sample of what benchmarks/faults.py does."""

import pytest
from crowd import readers_and_renames, two_writers


@pytest.mark.parametrize("turn", range(3))
def test_two_commands_at_once_make_one_cache_sound_and_complete(commands, tmp_path, turn):
    name = ["from nothing", "onto a cache"][turn % 2]
    toll = two_writers(commands[name], tmp_path / "run")
    assert (toll["unsound"], toll["unexplained"]) == (0, 0)
    assert toll["refused"] + toll["both worked"] == 1


def test_a_reader_never_sees_a_missing_or_a_half_cache(tmp_path):
    seen = readers_and_renames(tmp_path, opens=300, renames=60)
    assert seen.keys() == {"3 rows", "4 rows", "renames"}
    assert seen["3 rows"] + seen["4 rows"] == 300
    assert seen["renames"] == 60
    assert min(seen.values()) > 20
