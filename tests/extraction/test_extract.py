"""The one loop: values, order, empty slots, batch sizes, several backbones, bad numbers."""

import itertools
import logging
import os
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_world import (
    PREPROCESS,
    WIDTHS,
    SmallNet,
    by_hand,
    name_of,
    pixels,
    small_backbone,
    write_pictures,
)
from torch import nn

from pipeline.backbones import EngineMemoryError, Layer, load_backbone
from pipeline.backbones.engines.torch_engine import TorchEngine
from pipeline.cache import PartFolder
from pipeline.errors import BackboneError, CacheError, OptionError
from pipeline.extraction import (
    Clock,
    Forward,
    auto_batch_size,
    extract,
    forward_of,
    plan_batches,
    write_parts,
)
from pipeline.inputs import View, read
from pipeline.samples import SampleSet


def forward(backbone=None, taps=tuple(WIDTHS), **numbers) -> Forward:
    backbone = backbone or small_backbone()
    layers = {f"{backbone.name}/{tap}": backbone.layers[tap].width for tap in taps}
    spec = backbone.spec(**numbers)
    return forward_of(spec, layers, lambda: backbone, device="cpu", forward_cache=False)


def extracted(samples, forwards, batch_size=4, **options):
    return list(
        extract(samples, forwards, plan_batches(range(len(samples)), batch_size), **options)
    )


def matrix(batches, layer="small/high"):
    return np.concatenate([batch.layers[layer][batch.filled] for batch in batches])


@pytest.mark.parametrize("name", ["small", "timm/test_resnet", "timm/test_vit"])
def test_values_are_those_of_a_plain_forward_with_hooks(tmp_path, name):
    backbone = small_backbone() if name == "small" else load_backbone(name, weights=None)
    samples = SampleSet.from_folder(write_pictures(tmp_path, [3, 4, 5]))
    taps = list(backbone.layers)[:3]
    (batch,) = extracted(samples, [forward(backbone, taps, store_dtype="float32")])
    decoded = [np.asarray(Image.open(path).convert("RGB")) for path in samples.sources]
    assert list(batch.layers) == [f"{name}/{tap}" for tap in taps]
    expected = by_hand(backbone, decoded)
    for tap in taps:
        found = batch.layers[f"{name}/{tap}"]
        assert found.dtype == np.float32
        scale = np.abs(expected[tap]).max()
        np.testing.assert_allclose(found, expected[tap], atol=1e-4 * scale, rtol=1e-3)


def test_every_row_keeps_its_id_digest_size_and_date(tmp_path):
    samples = SampleSet.from_folder(write_pictures(tmp_path, range(7)))
    batches = extracted(samples, [forward()], 3)
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert tuple(itertools.chain(*(batch.ids for batch in batches))) == samples.ids
    inputs = np.concatenate([batch.inputs for batch in batches])
    for source, found in zip(samples.sources, inputs, strict=True):
        status = os.stat(source)
        assert (found["size"], found["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
        assert bytes(found["digest"]) == read(source).digest


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_batch_size_workers_and_neighbours_do_not_change_a_bit_on_the_cpu_engine(precision):
    samples = SampleSet.from_arrays(np.stack([pixels(seed) for seed in range(20)]))
    one = forward(precision=precision, store_dtype="float32")
    if one.engine.name != "openvino":
        pytest.skip("this processor does not compute in bfloat16")
    whole = matrix(extracted(samples, [one], 64))
    for size, workers in ((1, 1), (7, 1), (7, 5)):
        assert np.array_equal(matrix(extracted(samples, [one], size, num_workers=workers)), whole)
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(matrix(extracted(samples.subset(order), [one], 7)), whole[order])


def test_a_layer_more_does_not_change_the_others_beyond_rounding():
    samples = SampleSet.from_arrays(np.stack([pixels(seed) for seed in range(5)]))
    alone = matrix(extracted(samples, [forward(taps=["low"])]), "small/low")
    among = matrix(extracted(samples, [forward()]), "small/low")
    np.testing.assert_allclose(alone, among, rtol=2e-3)


def test_a_bad_input_keeps_its_slot_and_shifts_nobody(tmp_path):
    write_pictures(tmp_path, range(6))
    sound = {
        name: values
        for batch in extracted(SampleSet.from_folder(tmp_path), [forward()])
        for name, values in zip(batch.ids, batch.layers["small/top"], strict=True)
    }
    (tmp_path / name_of(0)).write_bytes(b"")
    (tmp_path / name_of(3)).write_bytes((tmp_path / name_of(3)).read_bytes()[:90])
    (tmp_path / name_of(4)).write_text("not a picture")
    samples = SampleSet.from_folder(tmp_path)
    batches = extracted(samples, [forward()], 4)
    reasons = {name: reason for batch in batches for name, reason in batch.failed.items()}
    assert reasons.keys() == {name_of(0), name_of(3), name_of(4)}
    assert all(reasons.values())
    good = {
        name: batch.layers["small/top"][place]
        for batch in batches
        for place, name in enumerate(batch.ids)
        if batch.filled[place]
    }
    assert good.keys() == sound.keys() - reasons.keys()
    for name, values in good.items():
        assert np.array_equal(values, sound[name])
    for batch in batches:  # what is bad has a digest, so that it is not tried again unchanged
        for place, name in enumerate(batch.ids):
            assert bytes(batch.inputs["digest"][place]) == read(tmp_path / name).digest


def test_a_missing_file_matches_no_content_so_that_it_is_tried_again(tmp_path):
    samples = SampleSet.from_list([tmp_path / "gone.png"])
    (batch,) = extracted(samples, [forward()])
    assert batch.failed == {samples.ids[0]: "no such file"}
    assert batch.inputs["size"].tolist() == batch.inputs["mtime_ns"].tolist() == [-1]
    assert not batch.inputs["digest"].any()
    assert batch.layers["small/top"].shape == (1, 3)


def test_known_contents_are_copied_not_computed(tmp_path):
    samples = SampleSet.from_folder(write_pictures(tmp_path, range(6)))
    known = {read(samples.sources[row]).digest for row in (1, 4)}
    batches = extracted(samples, [forward()], 4, known=known.__contains__)
    assert [batch.copied for batch in batches] == [(samples.ids[1],), (samples.ids[4],)]
    assert sum(batch.filled.sum() for batch in batches) == 4
    (batch,) = extracted(samples, [forward()], 6, known=lambda digest: True)
    assert not batch.filled.any()
    assert not batch.layers["small/low"].any()


def test_several_backbones_share_one_decoding_and_take_their_own_sizes(tmp_path):
    other = load_backbone(
        SmallNet(5),
        name="other",
        layers=["high"],
        preprocess=replace(PREPROCESS, image_size=(20, 20)),
    )
    samples = SampleSet.from_folder(write_pictures(tmp_path, range(5)))
    asked = Counter()

    def known(digest):  # asked once for every reading
        asked[digest] += 1
        return False

    forwards = [forward(taps=["high"]), forward(other, ["high"])]
    together = extracted(samples, forwards, 2, known=known)
    assert set(asked.values()) == {1}
    assert len(asked) == 5
    for one, layer in zip(forwards, ("small/high", "other/high"), strict=True):
        assert np.array_equal(matrix(together, layer), matrix(extracted(samples, [one], 3), layer))
    assert not np.array_equal(matrix(together, "small/high"), matrix(together, "other/high"))


def test_backbones_of_different_decoders_are_refused():
    forwards = [forward(decoder="pil"), forward(decoder="torchcodec")]
    with pytest.raises(OptionError, match="want the decoders pil and torchcodec, but one decoding"):
        extracted(SampleSet.from_list([pixels(0)]), forwards)


def test_taps_stand_bottom_to_top_whatever_their_order():
    one = forward(taps=["top", "low"])
    assert dict(one.layers) == {"small/low": 4, "small/top": 3}
    assert one.preprocess == PREPROCESS


def test_pictures_in_memory_files_and_bytes_agree(tmp_path):
    write_pictures(tmp_path, {"a.png": 8})
    path = tmp_path / "a.png"
    sources = [path, path.read_bytes(), pixels(8), Image.fromarray(pixels(8))]
    (batch,) = extracted(SampleSet.from_list(sources), [forward()])
    rows = batch.layers["small/top"]
    assert (rows == rows[0]).all()


class Bad(nn.Module):
    """Gives what the test wants for light grey pictures."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.fine, self.bad = nn.Identity(), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.fine(x.mean(dim=(2, 3)))
        return self.bad(torch.where((mean - 1).abs() < 0.5, self.value, mean))


def bad_forward(value, **numbers):
    backbone = load_backbone(
        Bad(value), name=f"bad{value}", layers=["fine", "bad"], preprocess=PREPROCESS
    )
    return forward(backbone, ["fine", "bad"], **numbers)


GREY = [np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 190, np.uint8)]


def test_an_overflow_names_id_layer_and_the_way_out():
    samples = SampleSet.from_list(GREY, ids=["dark", "grey"])
    with pytest.raises(
        BackboneError,
        match=r"layer bad1000000.0/bad of 'grey' holds 1e\+06, but float16 stores at most "
        r"65504\. Store wider numbers: --store-dtype float32",
    ):
        extracted(samples, [bad_forward(1e6)])
    (batch,) = extracted(samples, [bad_forward(1e6, store_dtype="float32")])
    assert batch.layers["bad1000000.0/bad"][1].tolist() == [1e6] * 3


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("precision", "way_out"),
    [("bfloat16", "--precision float32"), ("float32", "Take the input out, or look whether")],
)
def test_a_value_that_is_not_finite_names_id_layer_and_the_way_out(value, precision, way_out):
    samples = SampleSet.from_list(GREY, ids=["dark", "grey"])
    with pytest.raises(BackboneError, match=f"/bad of 'grey' holds {value}: .*{way_out}"):
        extracted(samples, [bad_forward(value, precision=precision, store_dtype="float32")])


def test_bad_numbers_in_an_empty_slot_disturb_nobody(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    samples = SampleSet.from_list([tmp_path / "empty.png", GREY[0]])
    (batch,) = extracted(samples, [bad_forward(1e6)])
    assert batch.filled.tolist() == [False, True]


class Cramped:
    """An engine with room for a few pictures, as a small graphics card has."""

    name = "cramped"
    depth = 2

    def __init__(self, engine, room: int) -> None:
        self.engine, self.room, self.sizes = engine, room, []

    def begin(self, pictures):
        self.sizes.append(len(pictures))
        if len(pictures) > self.room:
            raise EngineMemoryError("no memory")
        return self.engine.begin(pictures)

    def embed(self, pictures):
        return self.begin(pictures).result()


def test_where_memory_runs_out_smaller_batches_give_the_same_and_it_is_said_once(caplog):
    samples = SampleSet.from_arrays(np.stack([pixels(seed) for seed in range(32)]))
    plain = forward()
    cramped = replace(plain, engine=Cramped(plain.engine, 4))
    with caplog.at_level(logging.INFO):
        batches = extracted(samples, [cramped], 16)
    assert np.array_equal(matrix(batches), matrix(extracted(samples, [plain], 16)))
    assert [record.message for record in caplog.records] == [
        "memory ran out at 16 pictures: going on with 4"
    ]
    assert cramped.engine.sizes == [16, 16, 8, 4, 4, 4, 4, 4, 4, 4, 4]


def test_no_memory_for_one_picture_is_an_error_with_the_way_out():
    cramped = replace(forward(), engine=Cramped(None, 0))
    with pytest.raises(BackboneError, match=r"no memory for even one picture\. Take a smaller"):
        extracted(SampleSet.from_arrays(np.stack([pixels(0)] * 5)), [cramped])


def test_auto_batch_size_follows_the_device():
    assert auto_batch_size("cpu") == 16
    assert auto_batch_size("cuda:1") == auto_batch_size("mps") == 256


def test_batches_are_planned_once_from_the_rows():
    assert plan_batches([], 4) == []
    assert plan_batches(range(5), 2) == [[0, 1], [2, 3], [4]]


def test_the_clock_adds_up(tmp_path):
    samples = SampleSet.from_folder(write_pictures(tmp_path, range(30)))
    clock = Clock()
    one = forward()
    clock.start = time.perf_counter() - clock.began
    extracted(samples, [one], 4, clock=clock)
    seconds = clock.seconds()
    assert set(seconds) == {"start", "decode", "forward", "write", "wait", "total"}
    assert seconds["decode"] > 0
    spent = sum(seconds[name] for name in ("start", "forward", "write", "wait"))
    assert 0.5 * seconds["total"] < spent <= seconds["total"] + 0.01


@pytest.mark.parametrize(
    ("shares", "limit"),
    [
        ({"start": 3, "forward": 2}, "start"),
        ({"wait": 3, "decode": 1, "forward": 2}, "decode"),
        ({"decode": 9, "forward": 2}, "forward"),
        ({"write": 2, "forward": 1}, "write"),
    ],
)
def test_the_limit_is_what_took_most_of_the_time(shares, limit):
    assert Clock(**shares).limit() == limit


class Stopping:
    """An engine that is interrupted at its n-th batch, as by Ctrl-C."""

    name = "stopping"
    depth = 1

    def __init__(self, engine, batches: int) -> None:
        self.engine, self.left = engine, batches

    def begin(self, pictures):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.engine.begin(pictures)


def test_an_interrupt_keeps_every_batch_that_is_finished(tmp_path):
    samples = SampleSet.from_arrays(np.stack([pixels(seed) for seed in range(20)]))
    plain = forward()
    stopping = replace(plain, engine=Stopping(plain.engine, 3))
    folder = PartFolder(tmp_path / "cache.h5")
    batches = plan_batches(range(20), 4)
    with pytest.raises(KeyboardInterrupt):
        list(write_parts(samples, [stopping], batches, folder, settings={}))
    (part,) = folder.read([plain.spec]).sound
    assert part.ids == samples.ids[:12]
    expected = matrix(extracted(samples, [plain]))[:12]
    assert np.array_equal(part.vectors()["small/high"], expected)


def test_an_error_of_the_writing_thread_ends_the_loop(tmp_path):
    samples = SampleSet.from_arrays(np.stack([pixels(seed) for seed in range(20)]))
    (tmp_path / "cache.h5.parts").write_text("a file stands where the parts shall go")
    folder = PartFolder(tmp_path / "cache.h5")
    batches = plan_batches(range(20), 4)
    with pytest.raises((CacheError, OSError)):
        list(write_parts(samples, [forward()], batches, folder, settings={}))


def test_an_error_in_the_middle_ends_the_loading_threads_at_once():
    samples = SampleSet.from_arrays(np.stack([pixels(seed) for seed in range(200)]))
    stopping = replace(forward(), engine=Stopping(forward().engine, 1))
    with pytest.raises(KeyboardInterrupt) as held:  # its traceback holds the loop's frames
        extracted(samples, [stopping], 4)
    assert held.value is not None
    assert not [one for one in threading.enumerate() if one.name.startswith("loading")]


def test_a_view_is_embedded_as_its_own_pixels_are(tmp_path):
    samples = SampleSet.from_folder(write_pictures(tmp_path, range(6)))
    view = View(2, seed=3, flip=True)
    batches = extracted(samples, [forward(store_dtype="float32")], view=view)
    seen = [
        view.of(pixels(row_seed), read(source).digest)
        for row_seed, source in zip(seeds_of(samples), samples.sources, strict=True)
    ]
    for tap, expected in by_hand(small_backbone(), seen).items():
        got = matrix(batches, f"small/{tap}")
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    clean = matrix(extracted(samples, [forward(store_dtype="float32")]))
    assert (np.abs(matrix(batches) - clean).max(axis=1) > 1e-3).all()
    for batch in batches:  # the content is named by the file, whatever the view
        for row, digest in zip(batch.rows, batch.inputs["digest"], strict=True):
            assert digest.tobytes() == read(samples.sources[row]).digest


@pytest.mark.parametrize("view", [None, View(0, seed=5, flip=True)])
def test_the_clean_view_changes_no_bit(tmp_path, view):
    samples = SampleSet.from_folder(write_pictures(tmp_path, range(6)))
    assert np.array_equal(
        matrix(extracted(samples, [forward()], view=view)), matrix(extracted(samples, [forward()]))
    )


@pytest.mark.parametrize("size", [1, 5, 12])
def test_a_view_does_not_depend_on_batch_or_order(tmp_path, size):
    samples = SampleSet.from_folder(write_pictures(tmp_path, range(12)))
    view = View(1, flip=True)
    straight = matrix(extracted(samples, [forward()], 4, view=view))
    order = np.random.default_rng(0).permutation(12)
    batches = extract(samples, [forward()], plan_batches(order.tolist(), size), view=view)
    assert np.array_equal(matrix(list(batches)), straight[order])


def test_a_layer_without_pooling_is_extracted_like_any_other(tmp_path):
    backbone = small_backbone()
    low = Layer("low.values", 4 * 15 * 15, "BCHW", "low")
    engine = TorchEngine(backbone.network, [low, backbone.layers["high"]], "cpu", "float32")
    layers = {"small/low.values": low.width, "small/high": 6}
    samples = SampleSet.from_folder(write_pictures(tmp_path, range(5)))
    batches = extracted(samples, [Forward(engine, backbone.spec(), layers)], 2)
    values = matrix(batches, "small/low.values")
    assert values.dtype == np.float16
    means = values.astype(np.float32).reshape(5, 4, 15, 15).mean((2, 3))
    expected = by_hand(backbone, [pixels(seed) for seed in seeds_of(samples)])
    np.testing.assert_allclose(means, expected["low"], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(matrix(batches), expected["high"], rtol=2e-3, atol=1e-3)


def seeds_of(samples):
    """The seeds of pictures that `write_pictures` named."""
    return [int(name[2:5]) for name in samples.ids]
