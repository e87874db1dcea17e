"""How a run starts: what was prepared is read, what is not needed is not imported, nobody is asked."""

import json
import os
import subprocess
import sys

import pytest
import timm
import torch
from small_world import write_pictures

PROGRAM = """
import sys

def refuse(event, details):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"asked for the network: {event} {details}")

sys.addaudithook(refuse)
from pipeline.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "timm", "torchvision", "sklearn", "openvino"} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
raise SystemExit(code)
"""


@pytest.fixture
def world(tmp_path):
    """Photos, weights of a small network, and an empty folder for prepared graphs."""
    write_pictures(tmp_path / "photos", range(4))
    network = timm.create_model("test_resnet", num_classes=0)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    return tmp_path


def embed(world, cache, *flags):
    """Give the JSON of the command, its talk, and the heavy packages that it imported."""
    command = ["embed", "photos", cache, "--backbone", "timm/test_resnet", "--weights", "weights.pt"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, "--json", *flags],
        capture_output=True, text=True, cwd=world, check=False,
        env=os.environ | {"PIPELINE_CACHE_DIR": str(world / "kept")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *talk, heavy = done.stderr.splitlines()
    return json.loads(done.stdout), "\n".join(talk), heavy


def test_a_second_run_reads_what_the_first_prepared(world):
    first, _, heavy = embed(world, "a.h5")
    assert "timm" in heavy
    again, talk, heavy = embed(world, "b.h5")
    assert heavy == "['openvino', 'torch']"  # torch decodes and resizes
    assert again["rows"] == first["rows"] == 4
    assert "cannot" not in talk
    unchanged, _, heavy = embed(world, "b.h5")
    assert heavy == "[]"
    assert (unchanged["reused"], unchanged["images_per_second"]) == (4, None)


def test_without_the_forward_cache_all_is_made_anew_and_nothing_is_kept(world):
    _, _, heavy = embed(world, "a.h5", "--no-forward-cache")
    assert "timm" in heavy
    assert not (world / "kept").exists()


def test_weights_that_change_under_their_description_are_noticed(world):
    embed(world, "a.h5")
    (description,) = (world / "kept" / "graphs").glob("*.json")
    network = timm.create_model("test_resnet", num_classes=0)
    for parameter in network.parameters():
        parameter.data += 0.01
    torch.save(network.state_dict(), world / "weights.pt")
    other, _, heavy = embed(world, "b.h5")
    assert "timm" in heavy  # another file is another network, and is described anew
    assert other["rows"] == 4
    assert len(list((world / "kept" / "graphs").glob("*.json"))) == 2
    assert description.exists()
