import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import picture
from PIL import Image
from torchvision.transforms import v2

from pipeline.inputs import prepare
from pipeline.spec import Preprocessing

FILTERS = {
    "bicubic": v2.InterpolationMode.BICUBIC,
    "bilinear": v2.InterpolationMode.BILINEAR,
}
SIZES = [(500, 375), (375, 500), (224, 224), (1000, 99), (60, 40), (31, 200), (3, 2), (1, 1)]


def prepared(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    out = np.full((*preprocessing.image_size, 3), 99, np.uint8)
    prepare(np.array(image), preprocessing, out)
    return out


def torchvision_crop(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    side = preprocessing.resized_side()[0]
    resize = v2.Resize(side, FILTERS[preprocessing.interpolation])
    return np.asarray(v2.CenterCrop(preprocessing.image_size)(resize(image)))


def timm_picture(image: Image.Image, preprocessing: Preprocessing, **options) -> np.ndarray:
    from timm.data import create_transform

    transform = create_transform(
        input_size=(3, *preprocessing.image_size),
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        normalize=False,
        **options,
    )
    return transform(image).permute(1, 2, 0).numpy()


def pil_resize(image: Image.Image, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize with PIL, first in width and then in height.

    Left alone, PIL 13 begins with the cheaper direction, and the 8-bit values between
    the two passes are other ones.
    """
    filter_ = Image.Resampling[interpolation.upper()]
    widened = image.resize((size[1], image.height), filter_)
    return np.asarray(widened.resize((size[1], size[0]), filter_))


def assert_same_picture(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal but for rounding; a shift by a pixel would move the mean by several levels."""
    assert ours.shape == theirs.shape
    distance = np.abs(ours.astype(int) - theirs)
    assert distance.max(initial=0) <= 2
    assert distance.mean() < 0.2


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    target=st.tuples(st.integers(8, 150), st.integers(8, 150)),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    seed=st.integers(0, 99),
)
def test_noise_is_resized_as_pil_does(width, height, target, interpolation, seed) -> None:
    noise = np.random.default_rng(seed).choice(np.array([0, 255], np.uint8), (height, width, 3))
    rule = Preprocessing(target, resize="squash", interpolation=interpolation)
    ours = prepared(Image.fromarray(noise), rule)
    assert_same_picture(ours, pil_resize(Image.fromarray(noise), target, interpolation))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("side", [64, 97])
def test_crop_is_torchvision_s_resize_and_centre_crop_on_pil(size, interpolation, side) -> None:
    rule = Preprocessing((side, side), interpolation=interpolation)
    image = picture(*size)
    assert_same_picture(prepared(image, rule), torchvision_crop(image, rule))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    side=st.integers(8, 80),
    fraction=st.floats(0.5, 1.0),
)
def test_crop_is_torchvision_s_whatever_the_size(width, height, side, fraction) -> None:
    rule = Preprocessing((side, side), crop_fraction=fraction)
    image = picture(width, height)
    # Looser, because PIL may begin with the height here; a shift would move the mean by more.
    distance = np.abs(prepared(image, rule).astype(int) - torchvision_crop(image, rule))
    assert distance.max() <= 4
    assert distance.mean() < 0.5


@pytest.mark.parametrize("size", [(500, 375), (640, 480), (200, 300), (100, 80)], ids=str)
def test_the_default_is_what_timm_makes_for_efficientnet_lite0(size) -> None:
    rule = Preprocessing((224, 224), crop_fraction=0.875, mean=(0.5,) * 3, std=(0.5,) * 3)
    image = picture(*size)
    assert_same_picture(prepared(image, rule), timm_picture(image, rule, crop_pct=0.875))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_crop_for_a_network_that_is_not_square_is_timm_s(size) -> None:
    rule = Preprocessing((60, 90), crop_fraction=0.9)
    image = picture(*size)
    assert_same_picture(prepared(image, rule), timm_picture(image, rule, crop_pct=0.9))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("target", [(64, 64), (60, 90)])
def test_pad_is_timm_s_border_around_the_mean_colour(size, target) -> None:
    rule = Preprocessing(target, resize="pad", mean=(0.1, 0.5, 0.9))
    if min(size) * max(target) < max(size):
        pytest.skip("timm makes a side of no pixels of it")
    image = picture(*size)
    theirs = timm_picture(image, rule, crop_pct=1.0, crop_mode="border")
    assert_same_picture(prepared(image, rule), theirs)


def test_pad_keeps_the_whole_picture_and_the_colour_of_the_border() -> None:
    rule = Preprocessing((40, 40), resize="pad", mean=(0.1, 0.5, 0.9))
    out = prepared(Image.new("RGB", (80, 40)), rule)
    border = np.array([26, 128, 230])
    np.testing.assert_array_equal(out[:10], np.broadcast_to(border, (10, 40, 3)))
    np.testing.assert_array_equal(out[10:30], 0)
    np.testing.assert_array_equal(out[30:], np.broadcast_to(border, (10, 40, 3)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_squash_is_pil_s_resize(size, interpolation) -> None:
    rule = Preprocessing((64, 48), resize="squash", interpolation=interpolation)
    image = picture(*size)
    assert_same_picture(prepared(image, rule), pil_resize(image, (64, 48), interpolation))


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (3, 40_000)])
@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_the_thinnest_strip_needs_no_gigabytes(size, resize) -> None:
    image = Image.new("RGB", size, (10, 20, 30))
    rule = Preprocessing((224, 224), resize=resize, mean=(10 / 255, 20 / 255, 30 / 255))
    assert np.unique(prepared(image, rule).reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


def test_a_picture_of_the_network_s_size_passes_untouched() -> None:
    image = picture(64, 64)
    for resize in ("crop", "squash", "pad"):
        rule = Preprocessing((64, 64), resize=resize, crop_fraction=1.0)
        np.testing.assert_array_equal(prepared(image, rule), np.asarray(image))


def test_only_the_slot_is_written() -> None:
    batch = np.full((3, 20, 20, 3), 99, np.uint8)
    prepare(np.array(picture()), Preprocessing((20, 20)), batch[1])
    assert (batch[[0, 2]] == 99).all()
    assert not (batch[1] == 99).all()


def test_bytes_do_not_depend_on_torch_s_threads_or_the_neighbours() -> None:
    rule = Preprocessing((96, 96))
    images = [picture(300, 200, seed) for seed in range(6)]
    alone = [prepared(image, rule) for image in images]
    together: dict[int, np.ndarray] = {}

    def work(at: int) -> None:
        together[at] = prepared(images[at], rule)

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        threads = [threading.Thread(target=work, args=(at,)) for at in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(before)
    for at, pixels in enumerate(alone):
        np.testing.assert_array_equal(together[at], pixels)
