import hashlib
import io
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from pipeline.digest import digest_array
from pipeline.errors import InputError, UnreadableError
from pipeline.inputs import as_rgb, read


def reason(source: object) -> str:
    with pytest.raises(UnreadableError) as caught:
        read(source)
    assert caught.value.transient, "what lies outside the content is tried again"
    return caught.value.reason


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_file_is_its_bytes_its_digest_and_its_stamps(tmp_path, kind) -> None:
    path = tmp_path / "a photo é.jpg"
    path.write_bytes(b"some bytes")
    os.utime(path, ns=(1, 123_456_789_000))
    content = read(kind(path))
    assert content.data == b"some bytes"
    assert content.digest == hashlib.blake2b(b"some bytes", digest_size=16).digest()
    assert (content.size, content.mtime_ns) == (10, 123_456_789_000)


def test_bytes_are_digested_like_the_file_that_holds_them(tmp_path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(picture(), "PNG"))
    content = read(path.read_bytes())
    assert content.digest == read(path).digest
    assert content.mtime_ns == 0
    np.testing.assert_array_equal(content.pixels(), np.asarray(picture()))


def test_a_picture_in_memory_is_digested_by_its_pixels() -> None:
    pixels = np.asarray(picture())
    as_image, as_array = read(picture()), read(pixels)
    assert as_image.digest == as_array.digest == digest_array(as_rgb(pixels))
    assert as_array.digest != read(pixels[::-1]).digest
    assert (as_array.size, as_array.mtime_ns) == (pixels.nbytes, 0)
    np.testing.assert_array_equal(as_image.pixels(), pixels)


def test_a_symbolic_link_is_what_it_points_to(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read(tmp_path / "link").data == b"content"
    (tmp_path / "file").unlink()
    assert reason(tmp_path / "link") == "no such file"


def test_a_missing_file_and_a_missing_folder_have_one_reason(tmp_path) -> None:
    assert reason(tmp_path / "gone.jpg") == "no such file"
    assert reason(tmp_path / "no folder" / "gone.jpg") == "no such file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_says_so(tmp_path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert reason(path) == "permission denied"


def test_a_folder_is_no_file(tmp_path) -> None:
    assert reason(tmp_path) == "not a file but a folder"


@pytest.mark.timeout(10)
def test_a_pipe_a_socket_and_a_device_never_block(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not a file but a pipe or a device"
    assert reason("/dev/zero") == "not a file but a pipe or a device"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert reason(tmp_path / "s") == "not a file but a pipe or a device"


def test_a_name_that_no_file_system_allows_is_unreadable() -> None:
    assert reason("a\0b.jpg") == "embedded null byte"
    assert reason("n" * 300) == "file name too long"


def test_a_source_of_another_kind_is_an_error_of_the_call() -> None:
    with pytest.raises(InputError, match="got a int as a picture"):
        read(3)


def test_one_lazy_image_in_several_threads_is_loaded_once() -> None:
    content = encoded(picture(400, 300), "PNG")
    expected = read(picture(400, 300)).digest
    for _ in range(5):
        shared = [Image.open(io.BytesIO(content))] * 6
        with ThreadPoolExecutor(6) as pool:
            assert {content.digest for content in pool.map(read, shared)} == {expected}
