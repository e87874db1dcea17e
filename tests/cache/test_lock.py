"""One writer at a time: the kernel's lock decides, its text only tells."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from cache_making import in_child

from pipeline.cache import CacheLock
from pipeline.errors import CacheBusyError

HOLD = """
import sys, time
from pipeline.cache import CacheLock
with CacheLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.h5"


@pytest.fixture
def holder(path):
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_command_is_refused_with_host_process_and_age(path, holder):
    for _ in range(2):
        with pytest.raises(CacheBusyError) as raised, CacheLock(path):
            pass
        assert f"process {holder.pid} of " in raised.value.holder
        assert f" on {os.uname().nodename}, since " in raised.value.holder
        assert raised.value.path == str(path)


def test_a_killed_holder_leaves_no_stale_lock(path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert path.with_name("cache.h5.lock").exists()
    with CacheLock(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_the_python_door_waits_its_turn_and_says_for_whom_once(path, caplog):
    def work():
        with CacheLock(path):
            time.sleep(0.4)

    first = threading.Thread(target=work)
    first.start()
    while not path.with_name("cache.h5.lock").exists():
        time.sleep(0.01)
    time.sleep(0.05)
    start = time.monotonic()
    with CacheLock(path, wait=True):
        assert time.monotonic() - start > 0.1
    first.join()
    (record,) = caplog.records
    assert f"is being written by process {os.getpid()} of" in record.message
    assert record.message.endswith("waiting")


def test_the_text_is_json_and_any_other_text_holds_nobody_up(path):
    with CacheLock(path) as lock:
        assert set(json.loads(lock.path.read_text())) == {"host", "pid", "user", "start"}
    for text in ("", "{", "[]", '{"host": "elsewhere", "pid": 1, "user": "x", "start": 0}'):
        lock.path.write_text(text)
        with CacheLock(path):
            pass


def test_a_lock_of_unreadable_text_is_still_a_lock(path):
    with CacheLock(path) as lock:
        lock.path.write_text("")
        with pytest.raises(CacheBusyError, match="written by another process"), CacheLock(path):
            pass


def test_a_clock_that_went_backwards_gives_no_negative_age(path):
    with CacheLock(path) as lock:
        lock.path.write_text(
            json.dumps({"host": "h", "pid": 1, "user": "u", "start": time.time() + 1e6})
        )
        with pytest.raises(CacheBusyError, match=r"since 0\.0 s"), CacheLock(path):
            pass


def test_many_writers_never_hold_it_together(path):
    shared = path.with_name("count")
    shared.write_text("0")

    def work():
        for _ in range(20):
            with CacheLock(path, wait=True):
                count = int(shared.read_text())
                shared.write_text("")
                time.sleep(0.0005)
                shared.write_text(str(count + 1))

    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert shared.read_text() == "80"
    assert [found.name for found in path.parent.iterdir()] == ["count"]


def test_an_error_inside_frees_the_lock(path):
    with pytest.raises(KeyError), CacheLock(path):
        raise KeyError
    assert in_child(lambda: CacheLock(path).__enter__()) == 0
