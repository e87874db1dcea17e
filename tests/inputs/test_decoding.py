import contextlib
import io
import random
import struct
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import by_pil, chunk, encoded, interlaced_png, picture, png, png_header
from PIL import Image

from pipeline.errors import OptionError, UnknownNameError, UnreadableError
from pipeline.inputs import available_decoder, check_decoder, decode_image
from pipeline.inputs.orientation import read_orientation

both = pytest.mark.parametrize("decoder", ["torchcodec", "pil"])

TURNED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, -1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright),
}
"""What a viewer shows of stored pixels under each orientation."""


def reason(content: bytes, decoder: str = "torchcodec", **options: int) -> str:
    with pytest.raises(UnreadableError) as caught:
        decode_image(content, decoder, **options)
    assert caught.value.transient == ("--max-pixels" in caught.value.reason)
    return caught.value.reason


def on_white(rgba: np.ndarray, top: float = 255) -> np.ndarray:
    colour, alpha = rgba[..., :3] / top, rgba[..., 3:] / top
    return (colour * alpha + 1 - alpha) * 255


# --- the pixels are PIL's ---------------------------------------------------------------


@both
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (61, 43)])
@pytest.mark.parametrize("quality", [20, 95])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"subsampling": 1},
        {"progressive": True},
        {"keep_rgb": True},
        {"optimize": True, "restart_marker_rows": 1},
    ],
    ids=str,
)
def test_a_jpeg_decodes_as_pil_decodes_it(decoder, size, quality, options) -> None:
    content = encoded(picture(*size), "JPEG", quality=quality, **options)
    np.testing.assert_array_equal(decode_image(content, decoder), by_pil(content))


@both
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_decode_as_pil_decodes_them(decoder, mode) -> None:
    content = encoded(picture().convert(mode), "JPEG")
    np.testing.assert_array_equal(decode_image(content, decoder), by_pil(content))


@both
def test_a_ycck_jpeg_decodes_as_pil_decodes_it(decoder) -> None:
    # Adobe's marker says how the four channels are coded: 0 is CMYK, 2 is YCCK.
    content = bytearray(encoded(picture().convert("CMYK"), "JPEG"))
    marker = content.index(b"Adobe")
    assert content[marker + 11] == 0
    content[marker + 11] = 2
    np.testing.assert_array_equal(decode_image(bytes(content), decoder), by_pil(bytes(content)))


@both
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_png_decodes_as_pil_decodes_it(decoder, mode) -> None:
    content = encoded(picture().convert(mode), "PNG")
    np.testing.assert_array_equal(decode_image(content, decoder), by_pil(content))


@both
@pytest.mark.parametrize("size", [(1, 1), (11, 13)])
def test_an_interlaced_png_decodes_to_its_values(decoder, size) -> None:
    values = np.asarray(picture(*size))
    np.testing.assert_array_equal(decode_image(interlaced_png(values), decoder), values)


@both
@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("BMP", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"big_tiff": True}),
        ("MPO", {"save_all": True, "append_images": [picture(seed=3)]}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_every_other_format_decodes_as_pil_decodes_it(decoder, fmt, options) -> None:
    content = encoded(picture(), fmt, **options)
    np.testing.assert_array_equal(decode_image(content, decoder), by_pil(content))


@both
@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_stands_for_an_animation_or_a_document(decoder, fmt) -> None:
    frames = [picture(seed=seed) for seed in range(3)]
    content = encoded(frames[0], fmt, save_all=True, append_images=frames[1:])
    pixels = decode_image(content, decoder)
    np.testing.assert_array_equal(pixels, by_pil(content))
    assert np.abs(pixels - np.asarray(frames[0], float)).mean() < 12


@both
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_the_thinnest_pictures_are_pictures(decoder, size) -> None:
    content = encoded(picture(*size), "PNG")
    assert decode_image(content, decoder).shape == (size[1], size[0], 3)


@both
def test_pixels_are_contiguous_rgb_that_the_caller_may_write_to(decoder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (encoded(picture(), "JPEG", exif=exif), encoded(picture(), "GIF")):
        pixels = decode_image(content, decoder)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable


# --- 16 bits, transparency -----------------------------------------------------------


@both
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_values_are_scaled_and_never_clipped(decoder, channels) -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (9, 8, channels))
    values[0, :2] = [[0], [65_535]]
    pixels = decode_image(png(values, 16, {1: 0, 3: 2}[channels]), decoder)
    assert np.abs(pixels - values / 257).max() <= 1
    assert pixels[0, 0].max() == 0
    assert pixels[0, 1].min() == 255


@both
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 3)])
def test_sixteen_bit_tiffs_are_scaled_too(decoder, byteorder, compression, shape) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 65_536, shape).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, values, byteorder=byteorder, compression=compression)
    pixels = decode_image(file.getvalue(), decoder)
    assert np.abs(pixels - values.reshape(9, 8, -1) / 257).max() <= 1


def test_the_one_layout_that_pil_misreads_in_silence_is_refused() -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    planes = np.zeros((3, 9, 8), np.uint16)
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate")
    assert reason(file.getvalue()) == (
        "16-bit TIFF of uncompressed separate planes: save it with interleaved channels"
    )


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_pixels_without_a_scale_are_refused_not_guessed(dtype) -> None:
    content = encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF")
    assert reason(content) == "32-bit pixels: save the picture with 8 or 16 bits a channel"


@both
@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_on_white(decoder, fmt) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (9, 8, 4), dtype=np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    options = {"lossless": True, "exact": True} if fmt == "WEBP" else {}
    pixels = decode_image(encoded(Image.fromarray(rgba), fmt, **options), decoder)
    assert np.abs(pixels - on_white(rgba)).max() <= 1
    assert pixels[0].min() == 255
    np.testing.assert_array_equal(pixels[1], rgba[1, :, :3])


@both
def test_grey_with_alpha_lies_on_white(decoder) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 8, 2), dtype=np.uint8)
    pixels = decode_image(png(grey, 8, 4), decoder)
    assert np.abs(pixels - on_white(grey[..., [0, 0, 0, 1]])).max() <= 1


@both
def test_sixteen_bit_alpha_lies_on_white(decoder) -> None:
    rgba = np.random.default_rng(0).integers(0, 65_536, (9, 8, 4))
    assert np.abs(decode_image(png(rgba, 16, 6), decoder) - on_white(rgba, 65_535)).max() <= 2


@both
def test_a_transparent_colour_or_palette_entry_becomes_white(decoder) -> None:
    values = np.random.default_rng(0).integers(0, 3, (9, 8, 3), dtype=np.uint8)
    content = png(values, 8, 2, chunk(b"tRNS", struct.pack(">HHH", 1, 2, 0)))
    expected = np.where((values == [1, 2, 0]).all(-1, keepdims=True), 255, values)
    np.testing.assert_array_equal(decode_image(content, decoder), expected)

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for fmt in ("PNG", "GIF"):
        pixels = decode_image(encoded(palette, fmt, transparency=0), decoder)
        assert pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]


# --- which way up -----------------------------------------------------------------------


@both
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("stated", range(1, 9))
def test_the_stated_orientation_is_honoured_once(decoder, fmt, stated) -> None:
    exif = Image.Exif()
    exif[0x0112] = stated
    options = {"lossless": True} if fmt == "WEBP" else {}
    as_stored = by_pil(encoded(picture(), fmt, **options))
    pixels = decode_image(encoded(picture(), fmt, exif=exif, **options), decoder)
    np.testing.assert_array_equal(pixels, TURNED[stated](as_stored))


@both
def test_an_exif_chunk_behind_the_pixels_of_a_png_counts(decoder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    end = chunk(b"IEND", b"")
    plain = encoded(picture(), "PNG")
    late = plain.removesuffix(end) + chunk(b"eXIf", exif.tobytes()[6:]) + end
    np.testing.assert_array_equal(decode_image(late, decoder), TURNED[6](by_pil(plain)))


@both
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x112, 3, 1, 99),
    ],
)
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_a_broken_exif_block_does_not_fail_a_sound_picture(decoder, block, fmt) -> None:
    options = {"lossless": True} if fmt == "WEBP" else {}
    content = encoded(picture(), fmt, exif=block, **options)
    plain = encoded(picture(), fmt, **options)
    np.testing.assert_array_equal(decode_image(content, decoder), by_pil(plain))


def test_both_decoders_read_damaged_exif_blocks_alike() -> None:
    noise = random.Random(0)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    turned = 0
    for trial in range(300):
        exif.endian = noise.choice("<>")
        block = bytearray(exif.tobytes())
        for _ in range(noise.randint(0, 2)):
            block[noise.randrange(6, 40)] = noise.choice([0, 1, 6, 8, 255, noise.randrange(256)])
        content = encoded(picture(9, 5), "JPEG", exif=bytes(block[: noise.randint(30, 80)]))
        one, other = decode_image(content), decode_image(content, "pil")
        np.testing.assert_array_equal(one, other, err_msg=f"trial {trial}: {block.hex()}")
        turned += one.shape == (9, 5, 3)
    assert 50 < turned < 300


@given(st.binary(max_size=80))
def test_any_bytes_state_some_orientation(block: bytes) -> None:
    assert read_orientation(block) in range(1, 9)


# --- bad input --------------------------------------------------------------------------


@both
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {}),
    ],
    ids=str,
)
def test_a_file_cut_off_is_bad_and_never_half_grey(decoder, share, fmt, options) -> None:
    whole = encoded(picture(200, 150), fmt, **options)
    decode_image(whole, decoder)
    assert reason(whole[: int(len(whole) * share)], decoder).startswith("damaged ")


def test_a_cut_off_jpeg_says_what_is_missing() -> None:
    whole = encoded(picture(200, 150), "JPEG")
    said = [reason(whole[: len(whole) // 2], decoder) for decoder in ("torchcodec", "pil")]
    assert said[0] == said[1]
    assert said[0].startswith("damaged JPEG: image file is truncated")


@both
def test_a_png_with_a_flipped_bit_is_damaged(decoder) -> None:
    content = bytearray(encoded(picture(), "PNG"))
    content[len(content) // 2] ^= 1
    assert reason(bytes(content), decoder).startswith("damaged PNG: ")


def test_an_empty_file_is_called_so() -> None:
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"\n<!DOCTYPE HTML>\n<title>404</title>", "an HTML page"),
        (b"<html>" + "ä".encode() * 600, "an HTML page"),
        (b"<?xml version='1.0'?><svg/>", "an SVG drawing"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript document"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", "a film"),
        (b"RIFF\0\0\0\0AVI LIST", "a sound or a film"),
        (b"hello", "a text file"),
        (bytes(5000), "nothing but zero bytes"),
        (b"\0\x05\x16\x07\0\x02", "the sidecar that macOS writes beside a file"),
        (b"\x07\xff\xfe\x9c\0", "an unknown format that begins with the bytes 07 ff fe 9c"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a",
            "a Git LFS pointer: fetch the file itself with `git lfs pull`",
        ),
    ],
)
def test_what_is_no_picture_is_told_by_its_looks(content, looks) -> None:
    assert reason(content) == f"not a picture: it looks like {looks}"


@both
def test_a_bomb_is_refused_from_its_header(decoder) -> None:
    start = time.perf_counter()
    said = reason(png_header(30_000, 30_000), decoder)
    assert said == (
        "30,000 x 30,000 pixels are more than the limit of 178,956,970: raise it with --max-pixels"
    )
    assert time.perf_counter() - start < 0.5


def test_the_limit_of_pixels_is_the_caller_s() -> None:
    content = encoded(picture(60, 40), "PNG")
    assert decode_image(content, max_pixels=2400).shape == (40, 60, 3)
    assert "more than the limit of 2,399" in reason(content, max_pixels=2399)
    # Above PIL's own limit nothing is refused for its size; this file merely holds no rows.
    assert "truncated" in reason(png_header(20_000, 10_000), "pil", max_pixels=10**9)


@both
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_the_bytes_only_unreadable_error_comes_out(decoder, data) -> None:
    fmt = data.draw(st.sampled_from(["PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"]))
    content = bytearray(encoded(picture(12, 8), fmt))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnreadableError):
        pixels = decode_image(bytes(content), decoder, max_pixels=10**6)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


@given(content=st.binary(max_size=200))
def test_noise_is_no_picture(content) -> None:
    with pytest.raises(UnreadableError):
        decode_image(content, "pil")


# --- machines and manners ---------------------------------------------------------------


def test_heic_decodes_where_its_package_is_installed() -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(picture()).save(file, quality=100)
    pixels = decode_image(file.getvalue())
    oracle = heif.open_heif(io.BytesIO(file.getvalue())).to_pillow().convert("RGB")
    np.testing.assert_array_equal(pixels, np.asarray(oracle))
    assert np.abs(pixels - np.asarray(picture(), float)).mean() < 12


def test_heic_without_its_package_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableError) as caught:
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert caught.value.reason == "HEIC needs pillow-heif: pip install 'transfer-pipeline[heif]'"
    assert caught.value.transient


def test_a_machine_without_torchcodec_is_told_to_choose_pil(monkeypatch) -> None:
    assert available_decoder() == "torchcodec"
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    assert available_decoder() == "pil"
    check_decoder("pil")
    with pytest.raises(OptionError, match=r"torchcodec cannot be imported here .*decoder pil can"):
        check_decoder("torchcodec")


def test_a_mistyped_decoder_is_an_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'torchcodec'"):
        check_decoder("torchcodecs")


def test_pil_s_remarks_on_metadata_do_not_leak() -> None:
    content = encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(content)) as image:
            image.getexif()
        assert caught, "PIL no longer remarks on this file"
        caught.clear()
        decode_image(content, "pil")
        assert not caught


def test_pixels_do_not_depend_on_the_thread_or_its_neighbours() -> None:
    contents = [encoded(picture(120, 90, seed), "JPEG") for seed in range(8)]
    alone = [decode_image(content) for content in contents]
    together: dict[int, np.ndarray] = {}

    def work(place: int) -> None:
        together[place] = decode_image(contents[place])

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, pixels in enumerate(alone):
        np.testing.assert_array_equal(together[place], pixels)
