"""What a newcomer meets in the first ten minutes, one test each.

What help and usage errors say, and how fast, stands in ``tests/cli``; what the report shows
comes with the report.
"""

import csv
import json
import os
import struct
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
from photo_album import sky, write_album
from PIL import Image


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def cached(path):
    with h5py.File(path) as file:
        return file["ids"].asstr()[()].tolist(), file["layers/timm/test_resnet/features"][()]


def test_4_a_folder_of_class_folders_needs_no_other_flag_and_a_split_is_understood(
    cli, tiny, tmp_path
):
    write_album(tmp_path / "photos" / "train", each=6)
    for kind in ("dawn", "noon", "night"):
        (tmp_path / "photos" / "val" / kind).mkdir(parents=True)
        for seed in (20, 21):
            picture = Image.fromarray(sky(kind, seed))
            picture.save(tmp_path / "photos" / "val" / kind / f"{seed}.png")
    code, out, err = cli("run", tmp_path / "photos", "--out", tmp_path / "out", *tiny)
    assert code == 0, err
    assert "3 classes" in err
    assert "given split (18 train, 6 val)" in err
    held_out = [row[0] for row in rows(tmp_path / "out" / "predictions.csv")[1:]]
    assert len(held_out) == 6
    assert all(name.startswith("val/") for name in held_out)
    assert out.splitlines()[-1].startswith("accuracy 1.000  ")


def test_5_names_of_all_kinds_are_found(cli, tiny, tmp_path):
    names = ["a b.JPG", "Käuzchen.jpeg", "猫.png", "🦉 owl.PNG", "x%y&z=1,2.png"]
    for n, name in enumerate(names):
        (tmp_path / "photos" / f"k {n % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(sky("noon", n)).save(tmp_path / "photos" / f"k {n % 2}" / name)
    code, _, err = cli("embed", tmp_path / "photos", tmp_path / "c.h5", *tiny)
    assert code == 0, err
    assert cached(tmp_path / "c.h5")[0] == sorted(
        path.relative_to(tmp_path / "photos").as_posix()
        for path in (tmp_path / "photos").rglob("*.*")
    )


def test_5_a_name_that_is_not_utf_8_is_named_and_the_rest_goes_on(cli, tiny, tmp_path):
    folder = write_album(tmp_path / "photos", each=2, kinds=("dawn", "noon"))
    strange = os.fsencode(folder) + b"/dawn/caf\xe9.png"
    with open(strange, "wb") as file:
        file.write((folder / "dawn" / "0.png").read_bytes())
    code, _, err = cli("embed", folder, tmp_path / "c.h5", *tiny)
    assert code == 0, err
    assert len(cached(tmp_path / "c.h5")[0]) == 4
    out = cli("info", tmp_path / "c.h5")[1]
    assert "failed dawn/caf\\udce9.png: its name is not UTF-8: rename it" in out


def test_6_litter_is_skipped_and_counted_and_is_no_class(cli, tiny, tmp_path):
    folder = write_album(tmp_path / "photos", each=3)
    for litter in (".DS_Store", "Thumbs.db", "dawn/Thumbs.db", "notes.txt", "dawn/.hidden.png"):
        (folder / litter).write_bytes(b"litter")
    for hidden in (".ipynb_checkpoints", "__MACOSX"):
        (folder / hidden).mkdir()
        (folder / hidden / "1.png").write_bytes(b"litter")
    code, _, err = cli("embed", folder, tmp_path / "c.h5", *tiny, "--dry-run")
    assert code == 0
    assert err.splitlines()[0].startswith("9 images, 3 classes (smallest: dawn, 3), ")
    assert err.splitlines()[0].endswith("files skipped")


def test_7_what_was_understood_is_said_before_torch_is_imported(tiny, tmp_path):
    write_album(tmp_path / "photos", each=2)
    program = """
import sys
class Tells:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "sklearn", "timm"):
            print("IMPORTS", name, file=sys.stderr, flush=True)
sys.meta_path.insert(0, Tells())
from pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""
    words = ["run", "photos", "--out", "out", *tiny, "--head", "ridge"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "6 images, 3 classes (smallest: dawn, 2)"
    assert "IMPORTS torch" in lines


def test_8_a_log_file_holds_no_control_characters(cli, tiny, tmp_path):
    folder = write_album(tmp_path / "photos", each=3)
    _, out, err = cli("run", folder, "--out", tmp_path / "out", *tiny)
    assert (out + err).replace("\n", "").isprintable()


@pytest.mark.slow
def test_9_without_internet_a_network_without_weights_is_one_sentence(cli, tmp_path):
    folder = write_album(tmp_path / "photos", each=2)
    code, out, err = cli("embed", folder, tmp_path / "c.h5", "--backbone", "timm/test_vit")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 2, err
    assert "the weights of timm/test_vit are not on this machine" in err
    assert "--weights FILE.safetensors" in err


def big_png(path, side=30_000):
    """A picture of 30,000 x 30,000 pixels in 110 KB."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(side // 8 + 1) * side, 1)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_10_broken_photos_are_named_with_their_reason_and_the_run_goes_on(
    cli, tiny, tmp_path, monkeypatch
):
    folder = write_album(tmp_path / "photos", each=6)
    whole = (folder / "dawn" / "0.png").read_bytes()
    broken = {
        "dawn/cut.png": whole[: len(whole) // 2],
        "dawn/empty.jpg": b"",
        "noon/text.png": b"I am a letter",
        "noon/phone.heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200),
        "night/bomb.png": None,
    }
    for name, content in broken.items():
        if content is None:
            big_png(folder / name)
        else:
            (folder / name).write_bytes(content)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    began = time.perf_counter()
    code, out, err = cli("run", folder, "--out", tmp_path / "out", *tiny, "--head", "ridge")
    assert code == 0, err
    assert time.perf_counter() - began < 30
    found = dict(rows(tmp_path / "out" / "failed.csv")[1:])
    assert found.keys() == broken.keys()
    assert "empty" in found["dawn/empty.jpg"]
    assert "pip install 'transfer-pipeline[heif]'" in found["noon/phone.heic"]
    assert "pixels" in found["night/bomb.png"]
    assert f"5 failed: {tmp_path / 'out' / 'failed.csv'} names them" in err
    with h5py.File(tmp_path / "out" / "cache.h5") as file:
        assert len(file["ids"]) == 18
    code, out, err = cli("embed", folder, tmp_path / "d.h5", *tiny, "--on-bad-input", "fail")
    assert (code, out) == (1, "")
    for name in broken:
        assert f"  {name}: " in err


def test_11_the_same_picture_in_other_clothes_is_the_same_row(cli, tiny, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    upright = Image.fromarray(sky("noon", 0))
    upright.save(folder / "0 upright.png")
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees anticlockwise
    turned.save(folder / "1 turned.png", exif=exif)
    opaque = upright.copy()
    opaque.putalpha(255)
    opaque.save(folder / "2 alpha.png")
    upright.save(folder / "3.tif")
    upright.save(folder / "4.bmp")
    grey = upright.convert("L")
    grey.save(folder / "5 grey.png")
    grey.convert("RGB").save(folder / "6 grey as colour.png")
    deep = np.asarray(grey).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "7 grey of 16 bits.png")
    code, _, err = cli("embed", folder, tmp_path / "c.h5", *tiny)
    assert code == 0, err
    ids, features = cached(tmp_path / "c.h5")
    assert len(ids) == 8, err
    for row in range(1, 5):
        np.testing.assert_array_equal(features[row], features[0], err_msg=ids[row])
    for row in (6, 7):
        np.testing.assert_array_equal(features[row], features[5], err_msg=ids[row])
    assert (features[5] != features[0]).any()


def test_13_to_15_again_is_nothing_new_photos_are_few_and_a_corrected_label_is_free(
    cli, tiny, tmp_path
):
    folder = write_album(tmp_path / "photos", each=6)
    words = ["run", folder, "--out", tmp_path / "out", *tiny, "--head", "ridge"]
    assert cli(*words)[0] == 0
    assert "nothing to do: 18 reused" in cli(*words)[2]
    write_album(folder, each=7)
    assert "3 embedded, 18 reused" in cli(*words)[2]
    os.rename(folder / "dawn" / "0.png", folder / "noon" / "from dawn.png")
    code, _, err = cli(*words)
    assert code == 0
    assert "nothing to do: 21 reused" in err
    with h5py.File(tmp_path / "out" / "cache.h5") as file:
        labels = dict(zip(file["ids"].asstr(), file["targets/label"].asstr(), strict=True))
    assert labels["noon/from dawn.png"] == "noon"
    assert list(labels.values()).count("dawn") == 6


def test_13_a_dry_run_builds_no_network_and_writes_nothing(tmp_path):
    folder = write_album(tmp_path / "photos", each=2)
    program = (
        "import sys; from pipeline.cli import main; code = main(sys.argv[1:]);"
        "print(*{'timm', 'torchvision', 'sklearn'} & set(sys.modules)); sys.exit(code)"
    )
    words = ["embed", str(folder), str(tmp_path / "c.h5"), "--dry-run"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
    assert "6 images to embed with efficientnet_lite0 in " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_16_a_mistyped_class_column_or_layer_is_one_sentence(cli, tiny, tmp_path):
    write_album(tmp_path / "photos", each=2)
    (tmp_path / "t.csv").write_text(
        "path,species,place\nphotos/dawn/0.png,owl,a\nphotos/noon/0.png,elk,b\n"
    )
    for words, sentence in (
        ([], "there are 2 columns that could be the target: species, place."),
        (["--target", "specis"], "unknown target 'specis'. Did you mean 'species'?"),
        (["--target", "species", "--layers", "layer44"], "unknown layer 'layer44'. Did you mean"),
    ):
        code, out, err = cli("run", tmp_path / "t.csv", "--out", tmp_path / "out", *tiny, *words)
        assert (code, out) == (1, "")
        assert sentence in err.splitlines()[-1]


def test_17_six_ways_to_have_no_data_are_six_sentences(cli, tiny, tmp_path):
    album = write_album(tmp_path / "photos", each=3)
    (tmp_path / "empty").mkdir()
    write_album(tmp_path / "flat", each=2, kinds=("dawn",))
    for photo in (tmp_path / "flat" / "dawn").iterdir():
        photo.rename(tmp_path / "flat" / photo.name)
    (tmp_path / "flat" / "dawn").rmdir()
    write_album(tmp_path / "one", each=3, kinds=("noon",))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.pdf").write_text("a")
    sentences = {
        "phots": f"Did you mean '{album}'?",
        "empty": "empty is empty. Give a folder with images",
        "letters": "holds no image; found: 1 .pdf.",
        "letters/a.pdf": "a.pdf is neither a table nor an image.",
        "flat": "Put them in one folder per class (photos/owl/1.jpg)",
        "one": "has only one class, 'noon'",
    }
    said = set()
    for name, sentence in sentences.items():
        code, out, err = cli("run", tmp_path / name, "--out", tmp_path / "out", *tiny)
        assert (code, out) == (1, "")
        assert sentence in err
        assert err.splitlines()[-1].startswith("pipeline: ")
        said.add(err.splitlines()[-1])
    assert len(said) == 6
    assert not (tmp_path / "out").exists()


def test_17_one_image_a_class_is_trained_on_and_said(cli, tiny, tmp_path):
    album = write_album(tmp_path / "photos", each=1)
    code, out, err = cli("run", album, "--out", tmp_path / "out", *tiny)
    assert code == 0, err
    assert out == f"accuracy nan  {tmp_path / 'out' / 'model.safetensors'}\n"
    assert "no rows were held out: nothing could be measured" in err


def test_17_a_class_of_one_image_is_trained_on_and_never_tested_and_that_is_said(
    cli, tiny, tmp_path
):
    album = write_album(tmp_path / "photos", each=6, kinds=("dawn", "noon"))
    write_album(album, each=1, kinds=("night",))
    code, out, err = cli("run", album, "--out", tmp_path / "out", *tiny)
    assert (code, out[:9]) == (0, "accuracy ")
    assert "too few rows to hold any out: night" in err
    assert not [row for row in rows(tmp_path / "out" / "predictions.csv") if row[1] == "night"]


def test_17_not_one_usable_photo_names_the_commonest_reason(cli, tiny, tmp_path):
    for kind in ("a", "b"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        (tmp_path / "photos" / kind / "1.png").write_bytes(b"")
    code, out, err = cli("run", tmp_path / "photos", "--out", tmp_path / "out", *tiny)
    assert (code, out) == (1, "")
    assert "none of the 2 inputs can be used; the commonest reason, 2 times: " in err


def test_17_a_class_without_one_usable_photo_leaves_too_few(cli, tiny, tmp_path):
    album = write_album(tmp_path / "photos", each=3, kinds=("dawn", "noon"))
    for photo in (album / "noon").iterdir():
        photo.write_bytes(b"broken")
    code, out, err = cli("run", album, "--out", tmp_path / "out", *tiny)
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert "has only one class, 'dawn'" in last
    assert "3 inputs could not be used; the commonest reason, 3 times: " in last


def test_17_a_constant_number_is_nothing_to_learn(cli, tiny, tmp_path):
    write_album(tmp_path / "photos", each=3)
    lines = [f"photos/dawn/{n}.png,2.5" for n in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["path,age", *lines]))
    code, out, err = cli("run", tmp_path / "t.csv", "--out", tmp_path / "out", *tiny)
    assert (code, out) == (1, "")
    assert "target 'age' is 2.5 in every row: there is nothing to learn." in err


def test_18_and_21_the_last_line_is_the_figure_and_before_it_stands_what_it_rests_on(
    cli, tiny, tmp_path
):
    album = write_album(tmp_path / "photos", each=6)
    _, out, err = cli("run", album, "--out", tmp_path / "out", *tiny, "--seed", "5")
    model = tmp_path / "out" / "model.safetensors"
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["targets"]["label"]
    assert out == f"accuracy {metrics['accuracy']:.3f}  {model}\n"
    doubts = err.splitlines()[-2]
    assert f"{metrics['n_test']} held-out rows, seed 5, majority class " in doubts
    assert "95 % interval" in doubts


def test_22_and_25_the_moved_folder_predicts_new_photos_and_nothing_lies_elsewhere(
    cli, tiny, tmp_path, monkeypatch
):
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    album = write_album(tmp_path / "photos", each=6)
    before = {path: path.stat().st_mtime_ns for path in album.rglob("*")}
    assert cli("run", album, "--out", work / "out", *tiny)[0] == 0
    assert [path.name for path in work.iterdir()] == ["out"]
    assert not list(home.iterdir())
    assert {path: path.stat().st_mtime_ns for path in album.rglob("*")} == before
    (work / "out").rename(tmp_path / "elsewhere")
    new = write_album(tmp_path / "new", each=2)
    code, out, err = cli("predict", tmp_path / "elsewhere" / "model.safetensors", new)
    assert (code, out) == (0, "predictions.csv\n"), err
    found = rows(work / "predictions.csv")[1:]
    assert found == [
        [f"{kind}/{n}.png", kind] for kind in ("dawn", "night", "noon") for n in (0, 1)
    ]


def test_23_tables_are_plain_utf_8_without_an_index(cli, tiny, tmp_path):
    album = write_album(tmp_path / "photos", each=5)
    (album / "dawn").rename(album / "Dämmerung, früh")
    cli("run", album, "--out", tmp_path / "out", *tiny)
    text = (tmp_path / "out" / "predictions.csv").read_bytes().decode("utf-8")
    assert not text.startswith("\ufeff")
    assert text.splitlines()[0].startswith('id,label,prediction,"Dämmerung, früh",')
    assert all(len(row) == 6 for row in rows(tmp_path / "out" / "predictions.csv"))
