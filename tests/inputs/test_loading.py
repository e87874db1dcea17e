import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from pictures import encoded, picture

from pipeline.digest import digest_bytes
from pipeline.errors import InputError, OptionError, UnknownNameError
from pipeline.inputs import auto_workers, decode_image, load, prepare
from pipeline.spec import Preprocessing

SMALL = Preprocessing((32, 32))
WIDE = Preprocessing((24, 40), resize="squash", interpolation="bilinear")


@pytest.fixture
def folder(tmp_path):
    """Twelve photos, of which four are bad in four ways."""
    for number in range(12):
        content = encoded(picture(90 + number, 70, seed=number), "JPEG")
        (tmp_path / f"{number:02}.jpg").write_bytes(content)
    (tmp_path / "02.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "05.jpg").unlink()
    (tmp_path / "07.jpg").write_bytes(b"<html>")
    (tmp_path / "11.jpg").write_bytes(b"")
    return tmp_path


def paths(folder, count=12):
    return [folder / f"{number:02}.jpg" for number in range(count)]


def loading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("loading")]


def everything(batches):
    """The whole of a load, as one array for each preprocessing and one list of slots."""
    batches = list(batches)
    images = {
        key: np.concatenate([batch.images[key] for batch in batches]) for key in (SMALL, WIDE)
    }
    slots = [slot for batch in batches for slot in batch.slots]
    return images, [(slot.state, slot.digest, slot.size, slot.reason) for slot in slots]


def test_every_row_is_what_its_file_gives_alone(folder) -> None:
    sources = paths(folder)
    for batch in load(sources, [[0, 1, 3], [9, 4]], [SMALL, WIDE], num_workers=2):
        assert batch.mask.all()
        for place, row in enumerate(batch.rows):
            content = sources[row].read_bytes()
            for key, images in batch.images.items():
                alone = np.empty((*key.image_size, 3), np.uint8)
                prepare(decode_image(content), key, alone)
                np.testing.assert_array_equal(images[place], alone)
            slot = batch.slots[place]
            assert (slot.digest, slot.size) == (digest_bytes(content), len(content))
            assert slot.mtime_ns == sources[row].stat().st_mtime_ns


def test_bad_inputs_keep_their_slots_so_that_rows_never_shift(folder) -> None:
    batches = list(load(paths(folder), [range(7), range(7, 12)], [SMALL]))
    assert [batch.rows.tolist() for batch in batches] == [list(range(7)), list(range(7, 12))]
    slots = [slot for batch in batches for slot in batch.slots]
    failed = {row: slot.reason for row, slot in enumerate(slots) if slot.state == "failed"}
    assert failed.keys() == {2, 5, 7, 11}
    assert failed[2].startswith("damaged JPEG: image file is truncated")
    assert failed[5] == "no such file"
    assert failed[7] == "not a picture: it looks like an HTML page"
    assert failed[11] == "the file is empty"
    assert [row for row, slot in enumerate(slots) if slot.transient] == [5]
    images = np.concatenate([batch.images[SMALL] for batch in batches])
    filled = np.concatenate([batch.mask for batch in batches])
    np.testing.assert_array_equal(images.any(axis=(1, 2, 3)), filled)
    assert slots[5].digest == bytes(16)
    assert slots[7].digest == digest_bytes(b"<html>")


@pytest.mark.parametrize("num_workers", [1, 2, 8])
@pytest.mark.parametrize("size", [1, 5, 12, 100])
@pytest.mark.parametrize("decoder", ["torchcodec", "pil"])
def test_workers_batches_and_decoders_change_no_byte(folder, num_workers, size, decoder) -> None:
    def loaded(size, **options):
        batches = [range(start, min(start + size, 12)) for start in range(0, 12, size)]
        return everything(load(paths(folder), batches, [SMALL, WIDE], **options))

    images, slots = loaded(size, num_workers=num_workers, decoder=decoder)
    expected, expected_slots = loaded(3, num_workers=1)
    assert slots == expected_slots
    for key in (SMALL, WIDE):
        np.testing.assert_array_equal(images[key], expected[key])


def test_permuted_rows_give_permuted_batches(folder) -> None:
    order = np.random.default_rng(0).permutation(12)
    straight, _ = everything(load(paths(folder), [range(12)], [SMALL, WIDE]))
    mixed, _ = everything(load(paths(folder), [order[:5], order[5:]], [SMALL, WIDE]))
    np.testing.assert_array_equal(mixed[SMALL], straight[SMALL][order])


def test_a_known_content_is_read_but_not_decoded(folder) -> None:
    held = {digest_bytes(paths(folder)[row].read_bytes()) for row in (0, 2, 4)}
    (batch,) = load(paths(folder), [range(5)], [SMALL], known=held.__contains__)
    # Row 2 is damaged: whoever holds its digest has dealt with it already.
    assert [slot.state for slot in batch.slots] == ["known", "filled", "known", "filled", "known"]
    assert batch.mask.tolist() == [False, True, False, True, False]
    assert not batch.images[SMALL][[0, 2, 4]].any()
    assert {slot.digest for slot in batch.slots if slot.state == "known"} == held


def test_files_bytes_images_and_arrays_load_alike(folder) -> None:
    pixels = np.asarray(picture())
    content = encoded(picture(), "PNG")
    (folder / "same.png").write_bytes(content)
    sources = [folder / "same.png", str(folder / "same.png"), content, picture(), pixels]
    (batch,) = load(sources, [range(5)], [SMALL])
    for image in batch.images[SMALL]:
        np.testing.assert_array_equal(image, batch.images[SMALL][0])
    first, second = batch.slots[0].digest, batch.slots[3].digest
    assert [slot.digest for slot in batch.slots] == [first] * 3 + [second] * 2


def test_an_array_of_pictures_is_a_sequence_of_sources() -> None:
    stack = np.stack([np.asarray(picture(seed=seed)) for seed in range(4)])
    grey = load(stack[..., 0], [[0, 1, 2, 3]], [SMALL])
    colour = load(stack, [[0, 1, 2, 3]], [SMALL])
    assert next(grey).mask.all()
    assert next(colour).mask.all()


def test_a_batch_stays_as_it_was_while_others_follow(folder) -> None:
    loading = load(paths(folder), [[row] for row in (0, 1, 3, 4, 6, 8, 9, 10)], [SMALL])
    first = next(loading)
    before = first.images[SMALL].copy()
    assert len(list(loading)) == 7
    np.testing.assert_array_equal(first.images[SMALL], before)


def test_reading_ahead_is_bounded(folder) -> None:
    asked = []

    class Watched(list):
        def __getitem__(self, row):
            asked.append(row)
            return super().__getitem__(row)

    sources = Watched([np.zeros((4, 4), np.uint8)] * 1000)
    loading = load(sources, [[row] for row in range(1000)], [SMALL], num_workers=2)
    next(loading)
    time.sleep(0.2)
    assert len(asked) <= 16
    loading.close()


def test_no_batches_no_rows_and_empty_batches_are_fine() -> None:
    assert list(load([], [], [SMALL])) == []
    (batch,) = load([], [[]], [SMALL])
    assert batch.images[SMALL].shape == (0, 32, 32, 3)
    assert batch.mask.shape == (0,)


def test_the_threads_end_with_the_batches(folder) -> None:
    list(load(paths(folder), [range(12)], [SMALL], num_workers=3))
    assert not loading_threads()


def test_closing_early_ends_the_threads_at_once(folder) -> None:
    big = encoded(picture(3000, 2000), "PNG", compress_level=1)
    loading = load([big] * 400, [[row] for row in range(400)], [SMALL], num_workers=2)
    next(loading)
    start = time.perf_counter()
    loading.close()
    assert time.perf_counter() - start < 5
    assert not loading_threads()


def test_an_exception_in_the_loop_over_it_ends_the_threads(folder) -> None:
    def run() -> None:
        for _ in load(paths(folder), [[row] for row in range(12)], [SMALL], num_workers=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not loading_threads()


def test_an_interrupt_ends_a_loading_process_at_once() -> None:
    program = textwrap.dedent("""
        import numpy as np
        from pipeline.inputs import load
        from pipeline.spec import Preprocessing

        class Endless:
            def __len__(self): return 10**9
            def __getitem__(self, row): return np.zeros((300, 300, 3), np.uint8)

        batches = ([row] for row in range(10**9))
        for batch in load(Endless(), batches, [Preprocessing()], num_workers=4, decoder="pil"):
            print(batch.rows[0], flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=20)
    assert talk.decode().rstrip().endswith("KeyboardInterrupt")


def test_an_unexpected_error_in_a_thread_reaches_the_receiver(folder) -> None:
    class Broken(list):
        def __getitem__(self, row):
            if row == 3:
                raise ZeroDivisionError("a bug of ours")
            return super().__getitem__(row)

    batches = load(Broken(paths(folder)), [[0, 1], [2, 3]], [SMALL])
    assert next(batches).rows.tolist() == [0, 1]
    with pytest.raises(ZeroDivisionError) as caught:
        next(batches)
    assert caught.value.__notes__ == ["while loading row 3"]
    assert not loading_threads()


def test_a_source_of_another_kind_ends_the_load() -> None:
    with pytest.raises(InputError, match="got a NoneType as a picture"):
        list(load([None], [[0]], [SMALL]))


def test_impossible_options_are_refused_before_the_first_batch(folder) -> None:
    with pytest.raises(OptionError, match=r"num_workers is 0, but must be 1 or more. Leave it out"):
        load(paths(folder), [[0]], [SMALL], num_workers=0)
    with pytest.raises(UnknownNameError, match="unknown decoder 'opencv'"):
        load(paths(folder), [[0]], [SMALL], decoder="opencv")


def test_time_is_counted_where_it_goes(folder) -> None:
    start = time.perf_counter()
    batches = []
    for batch in load(paths(folder), [range(6), range(6, 12)], [SMALL], num_workers=2):
        batches.append(batch)
    passed = time.perf_counter() - start
    assert 0 < sum(batch.seconds for batch in batches) < 2 * passed
    assert 0 < sum(batch.waited for batch in batches) < passed


def test_one_thread_a_processor_up_to_sixteen() -> None:
    assert [auto_workers(count) for count in (1, 2, 16, 96)] == [1, 2, 16, 16]
    assert auto_workers() >= 1


def test_the_door_loads_neither_torch_nor_a_decoder_package() -> None:
    program = "import sys, pipeline.inputs; print({'torch', 'torchcodec'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert answer.stdout.decode().strip() == "set()"


def test_more_threads_than_the_processors_can_use_are_cut_down_and_that_is_said(folder, caplog):
    before = len(loading_threads())
    batches = load(paths(folder), [range(12)], [SMALL], num_workers=100_000)
    assert next(batches).rows.tolist() == list(range(12))
    processors = len(os.sched_getaffinity(0))
    assert caplog.messages == [
        f"100000 loading threads are more than {processors} processors can use: "
        f"{4 * processors} serve"
    ]
    assert len(loading_threads()) - before <= 4 * processors
