"""Views: what they keep of a picture, and that nothing but its content decides."""

import hashlib
import time

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from pipeline.digest import digest_array, digest_bytes
from pipeline.errors import OptionError
from pipeline.inputs import View, decode_image, load, prepare
from pipeline.spec import Preprocessing

SMALL = Preprocessing((32, 32))
SQUASH = Preprocessing((24, 40), resize="squash")
SIZES = [(1, 1), (1, 7), (28, 28), (40, 60), (300, 20), (3, 2000), (2000, 3)]


def coordinates(height, width):
    """A picture whose colours say where a pixel stands: row, and column in two bytes."""
    rows, columns = np.indices((height, width))
    return np.stack([rows % 256, columns % 256, columns // 256], axis=2).astype(np.uint8)


def digests(count):
    return [digest_bytes(str(number).encode()) for number in range(count)]


def by_hand(pixels, view, digest):
    """A view by fancy indexing: where every pixel of it comes from, kept inside the picture."""
    text = f"{view.seed} {view.number} ".encode() + digest
    drawn = hashlib.blake2b(text, digest_size=32).digest()
    scale, down, right, side = np.frombuffer(drawn, "<u8").astype(np.float64) / 2.0**64
    places = []
    for length, place in zip(pixels.shape[:2], (down, right), strict=True):
        size = max(1, round((0.85 + (1 - 0.85) * scale) * length))
        least, most = -0.05 * length, length - size + 0.05 * length
        start = round(least + place * (most - least))
        places.append(np.clip(np.arange(start, start + size), 0, length - 1))
    seen = pixels[np.ix_(*places)]
    return seen[:, ::-1] if view.flip and side < 0.5 else seen


@pytest.mark.parametrize("size", SIZES)
def test_a_view_is_what_fancy_indexing_gives(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for digest in digests(20):
        for view in (View(1), View(2, seed=5), View(3, flip=True)):
            np.testing.assert_array_equal(view.of(pixels, digest), by_hand(pixels, view, digest))


@pytest.mark.parametrize("size", SIZES)
def test_a_view_is_contiguous_and_writable_and_leaves_the_picture_as_it_was(size):
    pixels = coordinates(*size)
    for view in (View(0), View(1), View(1, flip=True), View.mirror()):
        for digest in digests(10):
            seen = view.of(pixels, digest)
            assert seen.flags.c_contiguous
            assert seen.flags.writeable
            assert seen.dtype == np.uint8
    np.testing.assert_array_equal(pixels, coordinates(*size))


def test_a_window_has_85_to_100_percent_of_the_sides_and_stands_over_by_5_percent_at_most():
    pixels = coordinates(200, 250)
    shares, tops, bottoms = [], [], []
    for digest in digests(400):
        seen = View(1).of(pixels, digest).astype(int)
        height, width = seen.shape[:2]
        assert abs(height / 200 - width / 250) < 0.006
        rows, repeated = seen[:, 0, 0], (np.diff(seen[:, 0, 0]) == 0).sum()
        assert set(np.diff(rows)) <= {0, 1}
        shares.append(height / 200)
        tops.append(repeated if rows[0] == 0 and repeated else -rows[0])
        bottoms.append(rows[-1] == 199)
    assert 0.85 <= min(shares) < 0.86
    assert 0.99 < max(shares) <= 1
    assert 7 <= max(tops) <= 10
    assert -40 <= min(tops) < -20
    assert 0.1 < np.mean(bottoms) < 0.6


def test_view_0_is_the_picture_itself():
    pixels = coordinates(30, 40)
    assert View(0, seed=3, flip=True).of(pixels, b"digest") is pixels


@pytest.mark.parametrize("size", SIZES)
def test_the_mirror_turns_the_clean_picture_around(size):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(View.mirror().of(pixels, b"any"), np.fliplr(pixels))


def test_half_of_the_views_with_flip_are_the_mirror_images_of_those_without():
    pixels, turned = coordinates(40, 60), 0
    for digest in digests(300):
        plain, flipped = View(1).of(pixels, digest), View(1, flip=True).of(pixels, digest)
        is_turned = not np.array_equal(plain, flipped)
        np.testing.assert_array_equal(flipped, plain[:, ::-1] if is_turned else plain)
        turned += is_turned
    assert 120 < turned < 180


def test_another_number_seed_or_content_gives_another_view():
    pixels = coordinates(200, 250)
    views = [View(1), View(2), View(1, seed=1), View(2, seed=1)]
    seen = [view.of(pixels, digest) for view in views for digest in digests(5)]
    assert len({(*one.shape, one.tobytes()) for one in seen}) == len(seen)


def test_a_view_stays_the_same_for_ever():
    """A resume, and another machine, must see what was seen before."""
    pixels = coordinates(200, 250)
    seen = View(3, seed=7, flip=True).of(pixels, bytes(range(16)))
    corner, size = seen[0, 0].tolist(), seen.shape[:2]
    assert (corner, size) == ([0, 242, 0], (181, 227))


def test_a_number_below_the_mirror_is_refused():
    with pytest.raises(OptionError) as error:
        View(-2)
    assert str(error.value) == (
        "the number of a view is -2, but must be 0 for the clean picture or more for a random "
        "view. Count views from 0."
    )


def test_views_of_a_photo_of_12_megapixels_take_less_time_than_decoding_it():
    content = encoded(Image.new("RGB", (4000, 3000)), "JPEG")
    seconds = {"decoding": [], "turned": [], "kept": []}
    for digest in digests(2):
        start = time.perf_counter()
        photo = decode_image(content, "pil")
        decoded = time.perf_counter()
        View.mirror().of(View(1).of(photo, digest), digest)
        turned = time.perf_counter()
        View(1).of(photo, digest)
        seconds["decoding"].append(decoded - start)
        seconds["turned"].append(turned - decoded)
        seconds["kept"].append(time.perf_counter() - turned)
    assert min(seconds["turned"]) < min(seconds["decoding"])
    assert min(seconds["kept"]) < min(seconds["decoding"]) / 3


@pytest.fixture
def folder(tmp_path):
    """Photos of many shapes, among them one of a single pixel and a damaged one."""
    sizes = [(90, 70), (60, 110), (1, 1), (28, 28), (900, 12), (80, 80), (50, 50)]
    for number, (width, height) in enumerate(sizes):
        content = encoded(picture(width, height, seed=number), "PNG")
        (tmp_path / f"{number}.png").write_bytes(content[:40] if number == 5 else content)
    return tmp_path


def loaded(folder, batches, view, preprocessings=(SMALL, SQUASH), **options):
    sources = [folder / f"{number}.png" for number in range(7)]
    return list(load(sources, batches, preprocessings, view=view, **options))


@pytest.mark.parametrize("view", [View(0, seed=9, flip=True), None])
def test_the_clean_view_loads_what_no_view_loads(folder, view):
    (seen,), (plain,) = loaded(folder, [range(7)], view), loaded(folder, [range(7)], View(0))
    sources = [folder / f"{number}.png" for number in range(7)]
    (without,) = load(sources, [range(7)], [SMALL, SQUASH])
    for key in (SMALL, SQUASH):
        np.testing.assert_array_equal(seen.images[key], plain.images[key])
        np.testing.assert_array_equal(seen.images[key], without.images[key])


@pytest.mark.parametrize("view", [View(2, seed=1, flip=True), View.mirror()])
def test_a_row_is_the_prepared_view_of_its_decoded_file(folder, view):
    (batch,) = loaded(folder, [range(7)], view)
    assert batch.mask.tolist() == [True] * 5 + [False, True]
    for row in np.flatnonzero(batch.mask):
        content = (folder / f"{row}.png").read_bytes()
        assert batch.slots[row].digest == digest_bytes(content)  # of the file, not of the view
        seen = view.of(decode_image(content), digest_bytes(content))
        for key, images in batch.images.items():
            alone = np.empty((*key.image_size, 3), np.uint8)
            prepare(seen, key, alone)
            np.testing.assert_array_equal(images[row], alone)
    assert not batch.images[SMALL][5].any()


@pytest.mark.parametrize("num_workers", [1, 2, 8])
def test_batch_order_and_threads_change_no_byte_of_a_view(folder, num_workers):
    view = View(1, seed=4, flip=True)
    (straight,) = loaded(folder, [range(7)], view, num_workers=1)
    order = [4, 6, 0, 2, 5, 1, 3]
    mixed = loaded(folder, [order[:3], order[3:4], order[4:]], view, num_workers=num_workers)
    for key in (SMALL, SQUASH):
        images = np.concatenate([batch.images[key] for batch in mixed])
        np.testing.assert_array_equal(images, straight.images[key][order])


def test_views_of_one_load_differ_from_the_clean_pictures_and_from_each_other(folder):
    rows = [[0, 1, 3, 6]]
    views = [None, View(1), View(2), View(1, seed=1)]
    images = [loaded(folder, rows, view)[0].images[SMALL] for view in views]
    for place, one in enumerate(images):
        for other in images[place + 1 :]:
            assert (one != other).any(axis=(1, 2, 3)).all()


def test_pictures_in_memory_are_looked_at_and_stay_as_they_were():
    stack = np.stack([coordinates(40, 50), coordinates(40, 50)[::-1]])
    before = stack.copy()
    (batch,) = load(stack, [[0, 1]], [SMALL], view=View(1, flip=True))
    np.testing.assert_array_equal(stack, before)
    for place in range(2):
        alone = np.empty((32, 32, 3), np.uint8)
        pixels = stack[place].copy()
        prepare(View(1, flip=True).of(pixels, digest_array(pixels)), SMALL, alone)
        np.testing.assert_array_equal(batch.images[SMALL][place], alone)
