"""Damage and forgery: files that are nearly right, drawn from a seed."""

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import h5py
import numpy as np
import safetensors.numpy

from pipeline.cache.seal import MAGIC, seal

USER_BLOCK = 4096
FRAGMENTS = (
    "null", "true", "-1", "0", "1.5", "1e999", "Infinity", "-Infinity", "NaN", "9" * 400,
    "9" * 5000, "18446744073709551616", '""', '"\\ud800"', '"\\u0000"', '"\\u001b[2J"', '"../x"',
    '"O"', '"float64"', '"<U500000000"', '"' + "x" * 100_000 + '"', "[]", "{}", "[null]",
    '{"a":{}}',
    "[" * 100_000, '{"a":' * 50_000, "[" + "0," * 50_000 + "0]",
)  # fmt: skip
"""JSON that nobody means well with; some of it is none."""

SHAPES = ((), (0,), (20,), (20, 5), (20, 6), (10**6, 10**6), (2**31,), (1, 1, 1))
TYPES = ("<f2", "<f8", "<i4", "<u8", "S1", "S900", h5py.string_dtype(), h5py.ref_dtype,
         h5py.vlen_dtype(np.int32))  # fmt: skip


def mutated(content: bytes, rng: np.random.Generator, start: int = 0) -> bytes:
    """Damage bytes from ``start`` on, as disks, networks and careless programs do."""
    body = bytearray(content[start:])
    manner = rng.choice(["bits", "bits", "bytes", "run", "cut", "grow", "drop", "swap", "copy"])
    places = sorted(int(place) for place in rng.integers(0, max(len(body), 1), 2))
    length = int(rng.integers(1, 64))
    a, b = places
    if manner in ("bits", "bytes"):
        for place in rng.integers(0, len(body), int(rng.integers(1, 9))):
            body[place] ^= 1 << int(rng.integers(8)) if manner == "bits" else int(rng.integers(256))
    elif manner == "run":
        body[a : a + length] = bytes([int(rng.choice([0, 255]))]) * len(body[a : a + length])
    elif manner == "cut":
        del body[a:]
    elif manner == "grow":
        body += rng.bytes(length)
    elif manner == "drop":
        del body[a : a + length]
    elif manner == "swap":
        body[a : a + length], body[b : b + length] = body[b : b + length], body[a : a + length]
    else:
        body[a : a + length] = body[b : b + length]
    return content[:start] + bytes(body)


def hostile(text: str, rng: np.random.Generator) -> str:
    """Put something hostile into a JSON text: in place of a value, or beside it."""
    value = json.loads(text)
    places = list(_places(value)) if isinstance(value, dict | list) else []
    if not places or rng.random() < 0.05:
        return _one_of(FRAGMENTS, rng)
    holder, key = _one_of(places, rng)
    manner = rng.choice(["replace"] * 5 + ["remove", "twin", "graft"])
    if manner == "remove":
        del holder[key]
        return json.dumps(value)
    if manner == "twin":  # the value of another place
        other, there = _one_of(places, rng)
        holder[key] = json.loads(json.dumps(other[there]))
        return json.dumps(value)
    if manner == "graft" and isinstance(holder, dict):
        holder["@"] = holder[key]
        return json.dumps(value)
    holder[key] = "@@"
    return json.dumps(value).replace('"@@"', _one_of(FRAGMENTS, rng), 1)


def _one_of(values, rng: np.random.Generator):
    return values[int(rng.integers(len(values)))]


def _places(value):
    """Walk over every value inside a JSON value, with what holds it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


# -------------------------------------------------------------------------------------- caches


def damage_cache(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Damage anything in it, more often what steers the reader than the rows."""
    content = source.read_bytes()
    start = 0 if rng.random() < 0.8 else len(content) // 3
    path.write_bytes(mutated(content, rng, start))


def forge_cache_bytes(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Damage what lies behind the user block, and seal it anew: HDF5 has to cope with it."""
    path.write_bytes(mutated(source.read_bytes(), rng, USER_BLOCK))
    with h5py.File(source) as file:
        extents = _extents(file)
    seal(path, extents, USER_BLOCK)


def forge_cache_seal(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Write hostile JSON into the seal, signed where it can be."""
    content = source.read_bytes()
    line = content[len(MAGIC) : content.index(b"\n", len(MAGIC))].decode()
    text = MAGIC + hostile(line, rng).encode(errors="surrogatepass") + b"\n"
    path.write_bytes(text.ljust(USER_BLOCK, b"\0") + content[USER_BLOCK:])


def forge_cache_structure(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Change datasets and attributes as HDF5 allows it, and seal it anew."""
    shutil.copyfile(source, path)
    forge = _one_of(_FORGERIES, rng)
    with h5py.File(path, "r+") as file:
        before = _extents(file)
        forge(file, rng)
    with h5py.File(path) as file:
        after = _extents(file)
    seal(path, after if rng.random() < 0.7 else before, USER_BLOCK)


def _extents(file: h5py.File) -> list[tuple[int, int]]:
    """Where the layers lie, as far as there still are some."""
    found = []

    def visit(name, item):
        layer = name.startswith("layers/") and isinstance(item, h5py.Dataset)
        if layer and item.id.get_offset() is not None:
            found.append((item.id.get_offset(), int(item.nbytes)))

    file.visititems(visit)
    return found


def _names(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) and None)
    return sorted(found)


def _any(file: h5py.File, rng: np.random.Generator) -> str:
    return _one_of(_names(file), rng)


def _swap(file, rng) -> None:
    a, b = _any(file, rng), _any(file, rng)
    if a != b and not b.startswith(a + "/") and not a.startswith(b + "/"):
        file.move(a, "aside")
        file.move(b, a)
        file.move("aside", b)


def _remove(file, rng) -> None:
    del file[_any(file, rng)]


def _link(file, rng) -> None:
    name = _any(file, rng)
    del file[name]
    links = [h5py.SoftLink("/ids"), h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/x", "/a")]
    file[name] = _one_of(links, rng)


def _alias(file, rng) -> None:
    file[f"layers/net/alias{int(rng.integers(9))}"] = file[_any(file, rng)]


def _retype(file, rng) -> None:
    """Put a dataset of another type or shape in its place; some claim more than there is."""
    name = _any(file, rng)
    del file[name]
    file.create_dataset(name, _one_of(SHAPES, rng), _one_of(TYPES, rng))


def _rewrite_attribute(file, rng) -> None:
    name = _one_of(("layers", "specs", "weights", "library_versions"), rng)
    file.attrs[name] = hostile(file.attrs[name], rng).replace("\0", "")


def _replace_attribute(file, rng) -> None:
    places = [file, *(file[name] for name in _names(file) if name.startswith("targets/"))]
    holder = _one_of(places, rng)
    name = _one_of(sorted(holder.attrs), rng)
    values = (7, -1.5, np.zeros(3), b"\xff\xfe", h5py.Empty("f"), "number", np.array([b"a"]))
    if rng.random() < 0.2:
        del holder.attrs[name]
    else:
        holder.attrs[name] = _one_of(values, rng)


_FORGERIES: tuple[Callable, ...] = (
    _swap, _swap, _remove, _link, _alias, _retype, _retype, _rewrite_attribute,
    _rewrite_attribute, _rewrite_attribute, _replace_attribute,
)  # fmt: skip


# -------------------------------------------------------------------------------------- models


def damage_model(source: Path, path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(mutated(source.read_bytes(), rng))


def forge_model_bytes(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Damage header or tensors, and put the right digest in where there still is a place."""
    content = source.read_bytes()
    start = 0 if rng.random() < 0.5 else 8 + struct.unpack("<Q", content[:8])[0]
    path.write_bytes(signed(mutated(content, rng, start)))


def forge_model_header(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Write hostile JSON into the header of safetensors: names, types, shapes, offsets."""
    header, body = _divided(source.read_bytes())
    path.write_bytes(signed(_joined(hostile(header, rng), body)))


def forge_model_description(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Write hostile JSON into our own description."""
    header, body = _divided(source.read_bytes())
    value = json.loads(header)
    text = hostile(value["__metadata__"]["pipeline"], rng)
    value["__metadata__"]["pipeline"] = text
    path.write_bytes(signed(_joined(json.dumps(value), body)))


def forge_model_tensors(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Give a tensor another type, shape or content; inside a skops file, too."""
    header, _ = _divided(source.read_bytes())
    tensors = safetensors.numpy.load(source.read_bytes())
    names = sorted(name for name in tensors if name != "digest")
    name = _one_of(names, rng)
    tensor = tensors[name]
    manner = int(rng.integers(4))
    if manner == 0 and tensor.nbytes:
        tensor = np.frombuffer(mutated(tensor.tobytes(), rng), np.uint8)
    elif manner == 1:
        tensor = tensor.reshape(1, -1)
    elif manner == 2:
        tensor = tensor.astype(_one_of((np.float64, np.int64, np.uint8), rng))
    else:
        tensor = rng.permutation(tensor.reshape(-1)).reshape(tensor.shape)
    metadata = json.loads(header)["__metadata__"]
    path.write_bytes(
        signed(safetensors.numpy.save(tensors | {name: np.ascontiguousarray(tensor)}, metadata))
    )


def forge_model_skops(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Write hostile JSON or damaged arrays into the zip of a scikit-learn step."""
    header, _ = _divided(source.read_bytes())
    tensors = safetensors.numpy.load(source.read_bytes())
    name = _one_of(sorted(n for n in tensors if tensors[n].tobytes()[:2] == b"PK"), rng)
    with zipfile.ZipFile(io.BytesIO(tensors[name].tobytes())) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    member = _one_of(sorted(members), rng) if rng.random() < 0.3 else "schema.json"
    if member == "schema.json":
        members[member] = hostile(members[member].decode(), rng).encode(errors="surrogatepass")
    else:
        members[member] = mutated(members[member], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    tensors[name] = np.frombuffer(buffer.getvalue(), np.uint8)
    metadata = json.loads(header)["__metadata__"]
    path.write_bytes(signed(safetensors.numpy.save(tensors, metadata)))


def signed(content: bytes) -> bytes:
    """Put the right digest into a model file; as it was where it has no place for one."""
    try:
        length = struct.unpack("<Q", content[:8])[0]
        start = 8 + length + json.loads(content[8 : 8 + length])["digest"]["data_offsets"][0]
        whole = bytearray(content)
        whole[start : start + 16] = bytes(16)
        whole[start : start + 16] = blake2b(whole, digest_size=16).digest()
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError, struct.error):
        return content
    return bytes(whole)


def _divided(content: bytes) -> tuple[str, bytes]:
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return content[8:end].decode(), content[end:]


def _joined(header: str, body: bytes) -> bytes:
    text = header.encode(errors="surrogatepass")
    return struct.pack("<Q", len(text)) + text + body
