"""The model file: read with plain safetensors, checked by hand, broken in every way."""

import hashlib
import json
import struct
import subprocess
import sys
import zipfile
from io import BytesIO

import numpy as np
import pytest
import safetensors.numpy
import skops.io
from safetensors import safe_open
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.naive_bayes import GaussianNB
from small_world import environment
from stores import LAYERS, model_of, store_of

from pipeline.config import TrainOptions
from pipeline.errors import ModelFileError
from pipeline.model import TransferModel, read_model_file
from pipeline.model.file import write_model_file
from pipeline.model.persistence import save_model
from pipeline.training import train

CHEAP, DEAR = ["logistic", "ridge", "svm", "knn", "lda"], ["forest", "boosting", "linear", "mlp"]


def seal(content: bytes | bytearray) -> bytes:
    """Put the right digest into a file, by hand."""
    length = struct.unpack("<Q", content[:8])[0]
    start, end = json.loads(content[8 : 8 + length])["digest"]["data_offsets"]
    body = bytearray(content)
    body[8 + length + start : 8 + length + end] = bytes(16)
    digest = hashlib.blake2b(body, digest_size=16).digest()
    body[8 + length + start : 8 + length + end] = digest
    return bytes(body)


def forge(path, description, tensors=None) -> None:
    """Write a file that looks like ours, with plain safetensors."""
    text = description if isinstance(description, str) else json.dumps(description)
    given = {"digest": np.zeros(16, np.uint8), **(tensors or {})}
    path.write_bytes(seal(safetensors.numpy.save(given, metadata={"pipeline": text})))


def refusal(path, **options) -> str:
    """The sentence with which a file is refused: nothing else may be raised."""
    with pytest.raises(ModelFileError) as caught:
        TransferModel.load(path, **options)
    assert str(path) in str(caught.value) or "model file holds" in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model = model_of(store_of(label=["elk", "fox", "owl"] * 20, patient=[*"abcdef"] * 10))
    model.save(path)
    return path


def test_the_file_is_plain_safetensors_with_one_metadata_key(saved):
    with safe_open(saved, "numpy") as file:
        assert set(file.metadata()) == {"pipeline"}
        said = json.loads(file.metadata()["pipeline"], parse_constant=pytest.fail)
        digest = file.get_tensor("digest")
        ids, ends = file.get_tensor("split/ids"), file.get_tensor("split/ids/ends")
        digests, parts = file.get_tensor("split/digests"), file.get_tensor("split/parts")
    model = TransferModel.load(saved)
    assert said["format_version"] == 1
    assert dict(said["layers"]) == model.layers
    assert said["specs"]["net"]["weights_digest"] == model.specs["net"].weights_digest
    assert [name for name, _ in said["targets"]] == ["label"]
    assert (digest.dtype, digest.shape) == (np.uint8, (16,))
    assert digests.shape == (60, 16)
    assert tuple(row.tobytes() for row in digests) == model.split.digests
    assert ids.tobytes().decode() == "".join(f"{row:03}.jpg" for row in range(60))
    assert ends.tolist() == list(range(7, 427, 7))
    assert [("train", "val", "test")[code] for code in parts] == list(model.split.parts)


def test_the_digest_is_blake2b_of_the_file_with_its_own_bytes_zero(saved):
    content = saved.read_bytes()
    stored = safetensors.numpy.load(content)["digest"].tobytes()
    length = struct.unpack("<Q", content[:8])[0]
    start = 8 + length + json.loads(content[8 : 8 + length])["digest"]["data_offsets"][0]
    assert content[start : start + 16] == stored
    zeroed = content[:start] + bytes(16) + content[start + 16 :]
    assert hashlib.blake2b(zeroed, digest_size=16).digest() == stored


def test_the_weights_of_the_head_are_tensors_that_anyone_can_multiply(saved):
    tensors = safetensors.numpy.load_file(saved)
    model = TransferModel.load(saved)
    X, _ = store_of().matrix(list(model.layers))
    scores = X @ tensors["heads/0/head/coef_"].T + tensors["heads/0/head/intercept_"]
    expected = np.array(["elk", "fox", "owl"])[scores.argmax(axis=1)]
    np.testing.assert_array_equal(model.predict(store_of()), expected)


def test_nothing_of_ours_is_a_pickle_or_a_skops_file(saved):
    content = saved.read_bytes()
    assert b"PK\x03\x04" not in content
    assert b"skops" not in content
    assert b"\x80\x04\x95" not in content


CHILD = """
import sys
import numpy as np
from stores import store_of
from pipeline.config import TrainOptions
from pipeline.model import TransferModel
from pipeline.training import train

folder, *heads = sys.argv[1:]
store = store_of(36)
for head in heads:
    model = TransferModel.load(f"{folder}/{head}.safetensors")
    np.save(f"{folder}/{head}.npy", model.predict_proba(store))
    np.save(f"{folder}/{head}.labels.npy", model.predict(store))
    model.save(f"{folder}/{head}.resaved")
    train(store, TrainOptions(head=head, fusion="last")).save(f"{folder}/{head}.retrained")
assert "torch" not in sys.modules or "linear" in heads
"""


@pytest.mark.parametrize("heads", [CHEAP, pytest.param(DEAR, marks=pytest.mark.slow)])
def test_a_fresh_process_predicts_the_same_and_trains_the_same_bytes(tmp_path, heads):
    store, models = store_of(36), {}
    for head in heads:
        models[head] = train(store, TrainOptions(head=head, fusion="last"))
        models[head].save(tmp_path / f"{head}.safetensors")
        models[head].save(tmp_path / f"{head}.twice")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), *heads],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for head, model in models.items():
        np.testing.assert_array_equal(
            np.load(tmp_path / f"{head}.npy"), model.predict_proba(store), err_msg=head
        )
        labels = np.load(tmp_path / f"{head}.labels.npy")
        np.testing.assert_array_equal(labels, model.predict(store), strict=True)
        first = (tmp_path / f"{head}.safetensors").read_bytes()
        for other in ("twice", "resaved", "retrained"):
            assert (tmp_path / f"{head}.{other}").read_bytes() == first, (head, other)


def test_no_clock_is_in_the_file_but_the_candidates_are(saved):
    model = TransferModel.load(saved)
    candidates = model.results["label"].fusions
    assert [one.fusion for one in candidates if one.seconds is not None] == []
    assert {"last", "concat", "evidence", "late"} < {one.fusion for one in candidates}


@pytest.mark.parametrize("kept", [0, 7, 8, 9, 40, 0.5, -17, -1])
def test_a_cut_file_is_refused(saved, tmp_path, kept):
    content, path = saved.read_bytes(), tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    assert refusal(path) in (
        f"{path} is not a model file, or was cut short. Copy it again.",
        f"{path} is damaged: its bytes are not those that were written. "
        "Copy it again, or train it again from its cache.",
    )


def test_any_flipped_byte_is_found(saved, tmp_path):
    """Every byte of the header, and a sample of the others, each as three other bytes."""
    content, path = bytearray(saved.read_bytes()), tmp_path / "flipped"
    header = 8 + struct.unpack("<Q", content[:8])[0]
    places = [*range(header), *range(header, len(content), 61)]
    flips = np.random.default_rng(0).integers(1, 256, size=len(places)).tolist()
    for place, flip in zip(places, flips, strict=True):
        content[place] ^= flip
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            read_model_file(path)
        content[place] ^= flip
    path.write_bytes(content)
    read_model_file(path)


def test_bytes_behind_the_end_are_found(saved, tmp_path):
    path = tmp_path / "longer"
    path.write_bytes(saved.read_bytes() + b"\0")
    assert "is damaged" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"PK\x03\x04 a zip",
        b"\x89HDF\r\n\x1a\n" + bytes(4096),
        b"id,prediction\n1.jpg,owl\n",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{" + bytes(100),
        struct.pack("<Q", 99_999_999) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995,
        struct.pack("<Q", 20) + b'{"__metadata__":[1]}',
    ],
)
def test_what_is_no_model_file_is_refused(tmp_path, content):
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    assert refusal(path) == f"{path} is not a model file, or was cut short. Copy it again."


def test_a_large_foreign_file_is_not_read_into_memory(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.write(b"\x89HDF\r\n\x1a\n")
        file.truncate(2**42)  # a hole: reading it would take 4 TiB of memory
    assert "is not a model file" in refusal(path)


def test_safetensors_of_another_program_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    for metadata in (None, {"format": "pt"}):
        path.write_bytes(safetensors.numpy.save({"w": np.ones(3)}, metadata=metadata))
        assert refusal(path) == (
            f"{path} is a safetensors file, but no model of this program. Give the file that "
            "`pipeline train` or `run` wrote."
        )
    path.write_bytes(safetensors.numpy.save({"w": np.ones(3)}, metadata={"pipeline": "{}"}))
    assert "is damaged" in refusal(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert refusal(tmp_path / "no") == (
        f"no model file at {tmp_path / 'no'}. `pipeline train` or `run` writes one."
    )
    assert "no model file at" in refusal(tmp_path)


def test_a_file_of_a_newer_version_says_what_to_do(tmp_path):
    path = tmp_path / "newer"
    forge(path, {"format_version": 2})
    assert refusal(path) == (
        f"{path} has format version 2; this program reads 1. "
        "Update it: pip install --upgrade transfer-pipeline"
    )


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '"format_version"', "[" * 100_000])
def test_a_forged_description_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "forged"
    forge(path, text)
    assert refusal(path) == f"{path} has a description that is no JSON of ours."


def nested(depth: int):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "change",
    [
        {"specs": []},
        {"specs": {"net": {}}},
        {"layers": 3},
        {"heads": [["label", [{"name": "head"}]]]},
        {"heads": [["label", [{"name": "head", "own": "ConcatFusion", "state": {"a": {"b": 1}}}]]]},
        {"heads": [["label", [{"name": "head", "own": "ConcatFusion",
                               "state": {"a": {"tensor": "nowhere"}}}]]]},
        {"heads": [["label", [{"name": "head", "own": "ConcatFusion",
                               "state": {"a": {"texts": ["V4", [nested(800)]]}}}]]]},
        {"heads": [["label", [{"name": "head", "skops": "digest"}]]]},
        {"targets": [["label", {}]]},
        {"targets": None},
        {"split": {"seed": 0}},
        {"split": {"seed": 0, "untested": 7}},
        {"weights": 3},
    ],
)  # fmt: skip
def test_a_forged_layout_is_refused(saved, tmp_path, change):
    description, tensors = read_model_file(saved)
    path = tmp_path / "forged"
    forge(path, {"format_version": 1, **description, **change}, tensors)
    assert "is not laid out as a model of ours" in refusal(path) or "cannot be read" in refusal(
        path
    )


@pytest.mark.parametrize("name", ["split/parts", "split/ids/ends", "split/ids", "split/digests"])
def test_forged_tensors_are_refused(saved, tmp_path, name):
    description, tensors = read_model_file(saved)
    path = tmp_path / "forged"
    for other in (np.full(60, 250, np.uint8), np.full((2, 2), np.nan), np.array(3, np.int64)):
        forge(path, {"format_version": 1, **description}, tensors | {name: other})
        try:
            TransferModel.load(path)
        except ModelFileError as error:
            assert "is not laid out" in str(error)  # noqa: PT017 - odd ids may well load


def test_a_forged_header_is_refused(saved, tmp_path):
    """Tensors that overlap, with a digest that fits."""
    content = saved.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["split/parts"]["data_offsets"] = header["split/ids"]["data_offsets"]
    text = json.dumps(header).encode()
    path = tmp_path / "forged"
    path.write_bytes(seal(struct.pack("<Q", len(text)) + text + content[8 + length :]))
    assert "is not laid out as a model of ours" in refusal(path)


def test_an_own_step_of_another_version_is_named(saved, tmp_path):
    description, tensors = read_model_file(saved)
    description["heads"] = [["label", [{"name": "head", "own": "NewestHead", "state": {}}]]]
    path = tmp_path / "newer"
    forge(path, {"format_version": 1, **description}, tensors)
    assert refusal(path) == (
        "the model file holds a step 'NewestHead', which this version does not know. "
        "Update it: pip install --upgrade transfer-pipeline"
    )


def malicious(target) -> bytes:
    """A skops file that would call a function, made by hand."""
    module, name = target
    schema = {
        "__class__": name, "__module__": module, "__loader__": "FunctionNode", "__id__": 1,
        "content": {"module_path": module, "function": name}, "protocol": 0,
        "_skops_version": skops.__version__,
    }  # fmt: skip
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "target", [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen")]
)
def test_a_malicious_type_is_refused_by_name(saved, tmp_path, target):
    description, tensors = read_model_file(saved)
    description["heads"] = [["label", [{"name": "head", "skops": "evil"}]]]
    path = tmp_path / "evil"
    evil = np.frombuffer(malicious(target), np.uint8)
    forge(path, {"format_version": 1, **description}, tensors | {"evil": evil})
    assert refusal(path) == (
        f"the model file holds types that are not trusted: {'.'.join(target)}. "
        "If the file is yours, load it with trusted=[...] naming them."
    )


class Majority(ClassifierMixin, BaseEstimator):
    """A head of another package."""

    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.share_ = counts / counts.sum()
        return self

    def predict_proba(self, X):
        return np.tile(self.share_, (len(X), 1))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def test_a_head_of_another_package_loads_only_when_it_is_trusted(tmp_path):
    path, store = tmp_path / "model", store_of()
    model = train(store, TrainOptions(fusion="last"), head=Majority())
    model.save(path)
    name = f"{__name__}.Majority"
    assert refusal(path) == (
        f"the model file holds types that are not trusted: {name}. "
        "If the file is yours, load it with trusted=[...] naming them."
    )
    loaded = TransferModel.load(path, trusted=[name])
    np.testing.assert_array_equal(loaded.predict_proba(store), model.predict_proba(store))


def test_a_head_of_scikit_learn_needs_no_trust(tmp_path):
    path, store = tmp_path / "model", store_of()
    model = train(store, TrainOptions(fusion="last"), head=GaussianNB())
    model.save(path)
    np.testing.assert_array_equal(TransferModel.load(path).predict(store), model.predict(store))


def test_every_part_of_a_model_comes_back(saved):
    model = model_of(store_of(label=["elk", "fox", "owl"] * 20, patient=[*"abcdef"] * 10))
    loaded = TransferModel.load(saved)
    assert loaded.specs == model.specs
    assert list(loaded.layers.items()) == list(model.layers.items())
    assert loaded.split == model.split
    assert loaded.results["label"].figures == model.results["label"].figures
    assert loaded.heads["label"][0].get_params() == model.heads["label"][0].get_params()


def test_groups_ids_and_labels_in_any_script_come_back(tmp_path):
    layers, _ = store_of().matrix(list(LAYERS))
    from pipeline.cache import EmbeddingStore

    ids = [f"zoë/猫 {row},😀\n.jpg" for row in range(60)]
    labels = ["", *(["löwe", 'a "b",c', "猫\n"] * 20)[1:]]
    store = EmbeddingStore.from_arrays(
        {"net/all": layers}, ids, {"label": labels, "group": [f"ö{row // 2}" for row in range(60)]}
    )
    model = train(store, TrainOptions(target="label", group="group", head="ridge"))
    path = tmp_path / "größe 猫.modell"  # any suffix
    model.save(path)
    loaded = TransferModel.load(path)
    assert loaded.split == model.split
    assert set(loaded.split.ids) == set(ids)
    assert loaded.split.groups is not None
    assert loaded.classes_.tolist() == sorted({"löwe", 'a "b",c', "猫\n"})
    np.testing.assert_array_equal(loaded.predict(store), model.predict(store))


def test_tensors_keep_dtype_shape_and_order(tmp_path):
    given = {
        "scalar": np.array(3, np.int64), "empty": np.empty((0, 3), np.float32),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        "strided": np.arange(10)[::2], "flags": np.array([True, False]),
        "unsigned": np.array([2**63], np.uint64),
    }  # fmt: skip
    path = tmp_path / "file"
    write_model_file(path, {"a": [1]}, given)
    description, tensors = read_model_file(path)
    assert description == {"a": [1]}
    assert set(tensors) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(tensors[name], array, strict=True)


def test_a_model_replaces_the_file_that_stands_there_or_leaves_it_alone(tmp_path, saved):
    path = tmp_path / "model"
    path.write_text("old")
    model = TransferModel.load(saved)
    model.save(path)
    assert path.read_bytes() == saved.read_bytes()
    assert [found.name for found in tmp_path.iterdir()] == ["model"]
    nowhere = tmp_path / "no folder" / "model"
    with pytest.raises(ModelFileError) as caught:
        save_model(model, nowhere)
    assert str(caught.value) == (
        f"cannot write {nowhere}: No such file or directory. Give a path in a folder that exists "
        "and can be written, on a disk with room."
    )


# ------------------------------------------------------- small files that ask for any memory


def rewritten(saved, path, change) -> None:
    """Change the description and the tensors of a file, and sign it again."""
    with safe_open(saved, "numpy") as file:
        said = json.loads(file.metadata()["pipeline"])
    tensors = safetensors.numpy.load_file(saved)
    change(said, tensors)
    forge(path, said, tensors)


def test_texts_of_a_type_wider_than_they_are_refused(saved, tmp_path):
    def change(said, _):
        text = json.dumps(said["heads"])
        assert '"<U3"' in text
        said["heads"] = json.loads(text.replace('"<U3"', '"<U500000000"'))

    rewritten(saved, tmp_path / "wide", change)
    assert "texts of the type '<U500000000'" in refusal(tmp_path / "wide")


@pytest.mark.parametrize("ends", [[420, 0] * 30, [421] * 60, [-1] * 60])
def test_texts_that_overlap_are_refused(saved, tmp_path, ends):
    def change(_, tensors):
        tensors["split/ids/ends"] = np.array(ends)

    rewritten(saved, tmp_path / "overlapping", change)
    assert "the texts of split/ids overlap" in refusal(tmp_path / "overlapping")


def test_a_step_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    saved, path = tmp_path / "lda", tmp_path / "bomb"
    model_of(head="logistic").save(saved)

    def change(said, tensors):
        name = next(name for name in tensors if tensors[name].tobytes().startswith(b"PK"))
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("schema.json", b" " * 10_000_000)
        assert len(buffer.getvalue()) < 20_000
        tensors[name] = np.frombuffer(buffer.getvalue(), np.uint8)

    rewritten(saved, path, change)
    assert "unpacks to more than it is" in refusal(path)
