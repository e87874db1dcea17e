import io

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from pipeline.errors import InputError, UnreadableError
from pipeline.inputs import as_rgb, decode_image

ACCEPTED = "uint8 arrays of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) are accepted"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
def test_an_opaque_pil_image_is_converted_as_pil_does(mode) -> None:
    image = picture().convert(mode)
    np.testing.assert_array_equal(as_rgb(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa"])
def test_a_transparent_pil_image_lies_on_white(mode) -> None:
    start = "LA" if mode == "LA" else "RGBA"
    assert as_rgb(Image.new(start, (2, 2)).convert(mode)).min() == 255


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled(dtype) -> None:
    values = np.array([[0, 257 * 7, 65_535]], dtype)
    assert as_rgb(Image.fromarray(values))[0, :, 0].tolist() == [0, 7, 255]


def test_a_picture_gives_the_same_pixels_opened_as_decoded() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(picture(), "PNG", exif=exif)
    opened = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(as_rgb(opened), decode_image(content))
    assert opened.size == picture().size, "the caller's image must stay as it was"


def test_arrays_of_every_accepted_shape_become_rgb() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = np.stack([grey] * 3, axis=2)
    np.testing.assert_array_equal(as_rgb(grey), expected)
    np.testing.assert_array_equal(as_rgb(grey[..., None]), expected)
    np.testing.assert_array_equal(as_rgb(expected), expected)
    alpha = np.full((2, 3, 1), 255, np.uint8)
    np.testing.assert_array_equal(as_rgb(np.concatenate([expected, alpha], 2)), expected)
    np.testing.assert_array_equal(as_rgb(np.concatenate([expected, 0 * alpha], 2)), 255)


def test_a_fitting_array_is_not_copied_and_others_become_contiguous_and_writable() -> None:
    fitting = np.zeros((4, 5, 3), np.uint8)
    assert as_rgb(fitting) is fitting
    mirrored = as_rgb(fitting[:, ::-1])
    assert mirrored.flags.c_contiguous
    fitting.flags.writeable = False
    assert as_rgb(fitting).flags.writeable


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (
            np.zeros((4, 5, 3), np.float32),
            f"got an array of float32, but only {ACCEPTED}. "
            "Scale the values to 0 to 255 and use array.astype('uint8')",
        ),
        (
            np.zeros((3, 4, 5), np.uint8),
            f"got an array of shape (3, 4, 5), but only {ACCEPTED}. "
            "Give one picture at a time, with its channels last",
        ),
        (
            np.zeros(4, np.uint8),
            f"got an array of shape (4,), but only {ACCEPTED}. "
            "Give one picture at a time, with its channels last",
        ),
        (
            np.zeros((0, 5, 3), np.uint8),
            "got an array of shape (0, 5, 3): a picture without pixels",
        ),
    ],
)
def test_any_other_array_is_refused_in_a_sentence(array, sentence) -> None:
    with pytest.raises(UnreadableError) as caught:
        as_rgb(array)
    assert caught.value.reason == sentence


def test_what_is_no_picture_at_all_is_an_error_of_the_call() -> None:
    with pytest.raises(InputError, match=r"got a list as a picture, but only PIL images and uint8"):
        as_rgb([[1, 2], [3, 4]])


def test_a_lazily_opened_image_that_cannot_be_loaded_is_unreadable() -> None:
    content = encoded(picture(200, 150), "JPEG")
    opened = Image.open(io.BytesIO(content[: len(content) // 2]))
    with pytest.raises(UnreadableError, match="PIL cannot load the picture: image file is trunc"):
        as_rgb(opened)
