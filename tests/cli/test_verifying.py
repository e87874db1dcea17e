"""`verify`: damage is named, mended and nothing else; today's numbers against the stored ones."""

import json
import shutil
import time

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from pipeline.cache import EmbeddingStore
from pipeline.cli.apart import read_apart
from pipeline.errors import InputError
from pipeline.verification import verify

LAYER = "timm/test_resnet/layer1"


def layer_offset(path, layer=LAYER):
    """Where the vectors of a layer begin in the file, by raw h5py."""
    with h5py.File(path) as file:
        return file[f"layers/{layer}"].id.get_offset()


def damage(path, layer=LAYER, place=5):
    """Flip a bit in the middle of a layer; give what the layers held before."""
    with EmbeddingStore.open(path) as store:
        before = {name: store.values(name) for name in store.layers}
    content = bytearray(path.read_bytes())
    content[layer_offset(path, layer) + place] ^= 4
    path.write_bytes(content)
    return before


def test_a_sound_cache_and_a_sound_model_are_called_so(cli, finished):
    code, out, err = cli("verify", finished / "cache.h5")
    assert (code, out, err) == (0, "sound: cache, 24 rows, 5 layers\n", "")
    code, out, _ = cli("verify", finished / "model.safetensors", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["kind"], found["sound"], found["rows"]) == ("model", True, 19)


def test_a_damaged_layer_is_named_with_its_rows(cli, finished):
    damage(finished / "cache.h5")
    code, out, _ = cli("verify", finished / "cache.h5")
    assert code == 1
    assert out == (f"damaged: cache, 24 rows, 5 layers\ndamaged {LAYER}: rows 0 to 23\n")
    found = json.loads(cli("verify", finished / "cache.h5", "--json")[1])
    assert found["damaged"] == {LAYER: [[0, 23]]}
    assert found["sound"] is False


@pytest.mark.parametrize("name", ["cache.h5", "model.safetensors"])
def test_a_damaged_frame_is_an_error_that_names_the_file(refused, finished, name):
    content = bytearray((finished / name).read_bytes())
    content[len(content) // 2 if name.startswith("m") else 5000] ^= 1
    (finished / name).write_bytes(content)
    assert name in refused(1, "verify", finished / name)


def test_repair_embeds_the_damaged_rows_again_and_gives_the_same_numbers(cli, finished, album):
    before = damage(finished / "cache.h5")
    labels = json.loads(cli("info", finished / "cache.h5", "--json")[1])["targets"]
    code, out, err = cli("verify", finished / "cache.h5", "--repair", album)
    assert code == 0, err
    assert out == "sound: cache, 24 rows, 5 layers\n24 rows were embedded again\n"
    with EmbeddingStore.open(finished / "cache.h5") as store:
        for name, values in before.items():
            np.testing.assert_array_equal(store.values(name), values)
    assert json.loads(cli("info", finished / "cache.h5", "--json")[1])["targets"] == labels


def test_repair_of_a_sound_cache_touches_nothing(cli, finished, album):
    before = (finished / "cache.h5").read_bytes()
    code, out, err = cli("verify", finished / "cache.h5", "--repair", album)
    assert code == 0
    assert "nothing is damaged: nothing to repair" in err
    assert out.endswith("0 rows were embedded again\n")
    assert (finished / "cache.h5").read_bytes() == before


def test_repair_leaves_alone_what_the_source_holds_beside(cli, finished, album, tmp_path):
    more = shutil.copytree(album, tmp_path / "more")
    picture = next(more.glob("*/*.png"))
    shutil.copy(picture, picture.with_name("new one.png"))
    damage(finished / "cache.h5")
    assert cli("verify", finished / "cache.h5", "--repair", more)[0] == 0
    with EmbeddingStore.open(finished / "cache.h5") as store:
        assert len(store) == 24
        assert not [name for name in store.ids if "new one" in name]


def test_repair_from_a_source_that_lacks_rows_is_refused(refused, finished, album, tmp_path):
    less = shutil.copytree(album, tmp_path / "less")
    gone = sorted(path for path in less.glob("*/*.png") if path.name != "broken.png")[0]
    gone.unlink()
    damage(finished / "cache.h5")
    said = refused(1, "verify", finished / "cache.h5", "--repair", less)
    assert f"1 of the 24 rows of {finished / 'cache.h5'} are not in this source as they " in said
    assert said.endswith("for instance. Give the source that it was made from.")


def other_photos(folder):
    for number, path in enumerate(sorted(folder.glob("*/*.png"))):
        Image.new("RGB", (40, 40), (number, 90, 20)).save(path)


def emptied(folder):
    next(path for path in sorted(folder.glob("*/*.png")) if path.name != "broken.png").write_bytes(
        b""
    )


@pytest.mark.parametrize("spoil", [other_photos, emptied])
def test_repair_from_other_photos_under_the_same_names_is_refused_and_loses_nothing(
    refused, finished, album, tmp_path, spoil
):
    other = shutil.copytree(album, tmp_path / "other")
    spoil(other)
    damage(finished / "cache.h5")
    before = (finished / "cache.h5").read_bytes()
    said = refused(1, "verify", finished / "cache.h5", "--repair", other)
    assert "rows of " in said
    assert "are not in this source as they were embedded, " in said
    assert (finished / "cache.h5").read_bytes() == before


def test_repair_from_a_copy_whose_dates_differ_works(cli, finished, album, tmp_path):
    copy = shutil.copytree(album, tmp_path / "copy", copy_function=shutil.copyfile)
    damage(finished / "cache.h5")
    code, out, err = cli("verify", finished / "cache.h5", "--repair", copy)
    assert (code, out.splitlines()[0]) == (0, "sound: cache, 24 rows, 5 layers"), err
    failed = json.loads(cli("info", finished / "cache.h5", "--json")[1])["failures"]
    assert list(failed) == ["noon/broken.png"]


def test_repair_that_cannot_read_an_input_any_more_drops_no_row(cli, refused, tiny, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        Image.new("RGB", (40 + 20 * number, 40), (number, 90, 20)).save(photos / f"{number}.png")
    cache = tmp_path / "c.h5"
    assert cli("embed", photos, cache, *tiny)[0] == 0
    damage(cache)
    said = refused(1, "verify", cache, "--repair", photos, "--max-pixels", "3000")
    assert "2 of the 4 rows of " in said
    assert "would be dropped, for their inputs cannot be used any more: '2.png' (" in said
    assert cli("verify", cache, "--repair", photos)[0] == 0


def test_a_model_has_no_rows_to_embed(refused, finished, album):
    said = refused(1, "verify", finished / "model.safetensors", "--drift", album)
    assert said == (
        "--repair and --drift embed rows again, but a model has none. Give them with a cache."
    )


def test_the_same_network_on_the_same_machine_has_not_drifted(cli, finished, album):
    code, out, _ = cli("verify", finished / "cache.h5", "--drift", album, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["drift_rows"], found["drift_changed"]) == (24, 0)
    assert set(found["drift"].values()) == {"identical"}


def resealed(path, change):
    """Write a cache again whose vectors are others: as another machine, or network, gives."""
    with EmbeddingStore.open(path) as store:
        arrays = {name: change(store.values(name)) for name in store.layers}
        made = EmbeddingStore.from_arrays(arrays, store.ids, specs=store.specs)
        inputs, weights = store.inputs.copy(), store.weights
    made._contents.inputs[:] = inputs
    made._contents.weights.update(weights)
    from pipeline.cache import write_cache

    write_cache(path, made._contents, lambda layer, window: arrays[layer][window])


@pytest.mark.parametrize(
    ("noise", "verdict", "code"), [(0.002, "rounding", 0), (3.0, "another network", 1)]
)
def test_other_numbers_are_told_apart_by_how_far_they_are(
    cli, finished, album, noise, verdict, code
):
    random = np.random.default_rng(0)

    def change(values):
        scale = noise * np.abs(values).mean()
        return (values + scale * random.normal(size=values.shape)).astype(values.dtype)

    resealed(finished / "cache.h5", change)
    found, out, err = cli("verify", finished / "cache.h5", "--drift", album)
    assert found == code, err
    assert f"drift {LAYER}: {verdict} (agreement 0." in out


def test_inputs_that_have_changed_say_nothing_of_drift(cli, refused, finished, album, tmp_path):
    other = shutil.copytree(album, tmp_path / "other")
    photos = sorted(path for path in other.glob("*/*.png") if path.name != "broken.png")
    shutil.copy(photos[0], photos[1])
    found = json.loads(cli("verify", finished / "cache.h5", "--drift", other, "--json")[1])
    assert (found["drift_rows"], found["drift_changed"]) == (23, 1)
    for photo in photos:
        photo.write_bytes(photo.read_bytes() + b"more")
    said = refused(1, "verify", finished / "cache.h5", "--drift", other)
    assert "is in this source with the same content. Give the source that it was made" in said


def test_weights_that_were_replaced_are_said(refused, finished, album, tmp_path):
    with EmbeddingStore.open(finished / "cache.h5") as store:
        (weights,) = store.weights.values()
    kept = load_file(weights)
    try:
        save_file({name: np.asarray(tensor + 1) for name, tensor in kept.items()}, weights)
        said = refused(1, "verify", finished / "cache.h5", "--drift", album)
    finally:
        save_file(kept, weights)
    assert "weights_digest is" in said or "no longer" in said


def test_values_that_are_not_finite_are_named_by_id(tmp_path, cli):
    path = tmp_path / "cache.h5"
    vectors = {"net/tap": np.ones((3, 2), np.float32)}
    EmbeddingStore.from_arrays(vectors, ["a", "b", "c"], path=path).close()
    from pipeline.cache import write_cache

    with EmbeddingStore.open(path) as store:
        contents = store._contents
    vectors["net/tap"][1, 0] = np.nan
    write_cache(path, contents, lambda layer, window: vectors[layer][window])
    assert verify(path).not_finite == {"net/tap": ["b"]}
    code, out, _ = cli("verify", path)
    assert (code, out.splitlines()[1]) == (1, "not finite net/tap: b")


def endless(file):
    time.sleep(60)


def greedy(file):
    return {"size": len(bytearray(6 << 30))}


def dying(file):
    import os

    os._exit(0)


def undecodable(file):
    return b"\xff".decode("utf-8")


def silent(file):
    raise OSError("truncated file")


def refusing(file):
    raise PermissionError(13, "Permission denied", str(file))


@pytest.mark.parametrize(
    ("reader", "kind", "sentence"),
    [
        (undecodable, RuntimeError, "UnicodeDecodeError: 'utf-8' codec can't decode"),
        (silent, OSError, "truncated file"),
        (refusing, PermissionError, "Permission denied"),
    ],
)
def test_the_error_of_a_child_is_the_error_of_the_command(tmp_path, reader, kind, sentence):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(kind, match=sentence):
        read_apart(reader, tmp_path / "file")


@pytest.mark.parametrize("reader", [endless, greedy, dying])
def test_a_reader_that_is_outwitted_is_ended(tmp_path, monkeypatch, reader):
    monkeypatch.setattr("pipeline.cli.apart._SECONDS", 1)
    file = tmp_path / "strange.h5"
    file.write_bytes(b"x")
    with pytest.raises(InputError) as error:
        read_apart(reader, file)
    assert str(error.value) == (
        f"{file} could not be read within 1 seconds and 2048 MB. It is damaged, or made to "
        "exhaust whoever reads it: do not use it."
    )
