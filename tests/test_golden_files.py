"""Files of released formats open for ever, with ours and with any HDF5 reader."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors import safe_open

from pipeline.cache import EmbeddingStore
from pipeline.digest import digest_bytes
from pipeline.model import TransferModel

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "cache-v1.h5"
WIDTHS = {"tiny/blocks.0": 4, "tiny/features": 6, "timm/test_vit/cls": 3}
IDS = [
    *("bird/amsel.jpg", "bird/b 2.png", "cat/zoë.jpg", "cat/猫.jpg", "dog/a/b.jpg"),
    *("dog/c.jpg", "owl/ü,1.jpg", "owl/😀.png", "x.jpg", "y.jpg"),
]


def expected(layer: str) -> np.ndarray:
    number = list(WIDTHS).index(layer)
    values = [
        [np.sin(row * 7 + column * 3 + number) for column in range(WIDTHS[layer])]
        for row in range(10)
    ]
    return np.array(values).astype(np.float32 if layer.startswith("timm") else np.float16)


def test_the_golden_cache_reads_with_h5py_alone():
    with h5py.File(GOLDEN) as file:
        assert file.attrs["format_version"] == 1
        assert json.loads(file.attrs["layers"]) == list(WIDTHS)
        assert set(json.loads(file.attrs["specs"])) == {"tiny", "timm/test_vit"}
        assert file["ids"].asstr()[()].tolist() == IDS
        for layer in WIDTHS:
            np.testing.assert_array_equal(file["layers"][layer][()], expected(layer), strict=True)
        assert [row.tobytes() for row in file["inputs"]["digest"]] == [
            digest_bytes(id.encode()) for id in IDS
        ]
        assert file["targets/label"].asstr()[4:7].tolist() == ["dog", "dog", ""]
        assert file["targets/gr%C3%B6%C3%9Fe%2Fcm"].attrs["kind"] == "number"
        assert file["failed"][0]["reason"].decode() == "truncated image"


@pytest.mark.parametrize("layer", WIDTHS)
def test_the_golden_cache_gives_its_vectors(layer):
    with EmbeddingStore.open(GOLDEN) as store:
        X, slices = store.matrix()
        assert store.layers == WIDTHS
        np.testing.assert_array_equal(X[:, slices[layer]], expected(layer).astype(np.float32))


def test_the_golden_cache_gives_all_it_says_about_its_rows():
    with EmbeddingStore.open(GOLDEN) as store:
        assert list(store.ids) == IDS
        assert {name: spec.precision for name, spec in store.specs.items()} == {
            "tiny": "float32",
            "timm/test_vit": "bfloat16",
        }
        assert store.specs["timm/test_vit"].preprocess.image_size == (64, 48)
        assert list(store.targets) == ["label", "größe/cm", "camera"]
        assert store.targets["label"].kind == "class"
        assert store.targets["label"].values.tolist() == [
            *["bird"] * 2, *["cat"] * 2, *["dog"] * 2, *[""] * 4,
        ]  # fmt: skip
        np.testing.assert_array_equal(
            store.targets["größe/cm"].values, [1.5, np.nan, -2, 0, 1e9, 3, 4, 5, 6, np.nan]
        )
        assert store.targets["camera"].kind == ""
        assert store.targets["camera"].values[:3].tolist() == ["A|1", "", "c d"]
        assert [(f.id, f.size, f.mtime_ns) for f in store.failed] == [("dog/broken.jpg", 7, 8)]
        assert store.inputs["size"].tolist() == list(range(1000, 1010))
        assert store.created == "2026-11-24T00:00:00+00:00"
        assert store.weights == {"timm/test_vit": "random"}
        assert store.damaged() == {}


MODEL = GOLDEN.with_name("model-v1.safetensors")
MODEL_IDS = ["bird/amsel.jpg", "cat/zoë.jpg", "cat/猫,1.jpg", "owl/😀.png"]
COEF = (np.arange(15) % 4 - 1.5).reshape(5, 3)
X = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
FUSED = (X - np.arange(5) / 4) * [1, 2, 0.5, 1, 4]


def model_vectors() -> EmbeddingStore:
    layers = {"tiny/blocks.0": X[:, :2], "tiny/features": X[:, 2:]}
    return EmbeddingStore.from_arrays(
        layers, [f"{row}" for row in range(20)], specs=TransferModel.load(MODEL).specs
    )


def test_the_golden_model_reads_with_safetensors_alone():
    with safe_open(MODEL, "numpy") as file:
        assert set(file.metadata()) == {"pipeline"}
        said = json.loads(file.metadata()["pipeline"], parse_constant=pytest.fail)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert said["format_version"] == 1
    assert said["layers"] == [["tiny/blocks.0", 2], ["tiny/features", 3]]
    assert [name for name, _ in said["targets"]] == ["label", "größe/cm"]
    assert [[step["own"] for step in steps] for _, steps in said["heads"]] == [
        ["ConcatFusion", "LooRidgeClassifier"],
        ["ConcatFusion", "LooRidgeRegressor"],
    ]
    assert said["specs"]["tiny"]["preprocess"]["image_size"] == [32, 48]
    np.testing.assert_array_equal(tensors["heads/0/head/coef_"], COEF)
    np.testing.assert_array_equal(
        tensors["backbones/tiny/conv.weight"],
        (np.arange(12, dtype=np.float32) / 8).reshape(2, 6),
        strict=True,
    )
    assert tensors["backbones/tiny/bn.num_batches_tracked"].shape == ()
    assert [row.tobytes() for row in tensors["split/digests"]] == [
        digest_bytes(id.encode()) for id in MODEL_IDS
    ]
    ends = tensors["split/ids/ends"].tolist()
    names = [
        tensors["split/ids"].tobytes()[start:end].decode()
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    assert names == MODEL_IDS
    assert tensors["split/parts"].tolist() == [0, 2, 1, 0]


def test_the_golden_model_has_its_digest():
    content = bytearray(MODEL.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start = 8 + length + json.loads(content[8 : 8 + length])["digest"]["data_offsets"][0]
    stored = bytes(content[start : start + 16])
    content[start : start + 16] = bytes(16)
    assert hashlib.blake2b(content, digest_size=16).digest() == stored


def test_the_golden_model_predicts():
    model, store = TransferModel.load(MODEL), model_vectors()
    scores = FUSED @ COEF + [0.25, -0.5, 0.0]
    found, proba = model.predict(store), model.heads["label"].predict_proba(X)
    assert found["label"].tolist() == [
        ["amsel", "猫 cat", "owl"][place] for place in scores.argmax(axis=1)
    ]
    np.testing.assert_allclose(found["größe/cm"], FUSED @ (np.arange(5.0) / 2) + 40, rtol=1e-6)
    powers = np.exp(2 * (scores - scores.max(axis=1, keepdims=True)))
    np.testing.assert_allclose(proba, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_golden_model_gives_all_it_says(tmp_path):
    model = TransferModel.load(MODEL)
    assert model.layers == {"tiny/blocks.0": 2, "tiny/features": 3}
    assert model.specs["tiny"].decoder == "pil"
    assert list(model.split.ids) == MODEL_IDS
    assert model.split.parts == ("train", "test", "val", "train")
    assert (model.split.seed, model.split.groups, model.split.untested) == (
        3, ("", "z", "m", ""), ("owl",),
    )  # fmt: skip
    results = model.results["label"]
    assert results.figures["ece"] is None
    assert results.fusions[0].score == {"accuracy": 0.5, "log_loss": 0.5, "log_loss_se": None}
    assert model.results["größe/cm"].figures == {"r2": 0.5, "mae": 1.25}
    assert model.heads["label"][-1].alpha_ == 1.0
    assert set(model.states["tiny"]) == {"conv.weight", "bn.num_batches_tracked"}
