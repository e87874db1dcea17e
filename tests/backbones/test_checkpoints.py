"""Weights from local files: what fits, what does not, and what is never run."""

import os
import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_networks import ThreeBlocks, eager, pictures, random_backbone

from pipeline.backbones import load_backbone
from pipeline.backbones.checkpoint import load_weights, read_state
from pipeline.errors import BackboneError

RESNET = "timm/test_resnet"


@pytest.fixture(scope="module")
def state():
    """Weights of test_resnet with its classifier, other than our random ones."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return timm.create_model("test_resnet").state_dict()


def saved_safetensors(state, path):
    save_file(state, path)


def saved_wrapped(state, path):
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)


WAYS = {
    "weights.safetensors": saved_safetensors,
    "weights.bin": saved_safetensors,
    "weights.pt": torch.save,
    "weights.pth": saved_wrapped,
}


@pytest.mark.parametrize(("name", "save"), WAYS.items(), ids=WAYS)
def test_a_file_gives_its_weights_whatever_its_suffix(name, save, state, tmp_path):
    path = tmp_path / name
    save(state, path)
    backbone = load_backbone(RESNET, weights=path)
    for key, tensor in backbone.network.module.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    assert not any(key.startswith("fc.") for key in backbone.network.module.state_dict())
    assert backbone.network.weights == str(path)
    assert backbone.weights_digest != random_backbone(RESNET).weights_digest


def test_half_precision_weights_become_those_of_the_architecture(state, tmp_path):
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "half.pt")
    module = load_backbone(RESNET, weights=tmp_path / "half.pt").network.module
    assert torch.equal(module.conv1[0].weight, state["conv1.0.weight"].half().float())


def test_counters_that_old_files_lack_are_not_missed(state, tmp_path):
    old = {name: value for name, value in state.items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pt")
    full = tmp_path / "full.pt"
    torch.save(state, full)
    assert (
        load_backbone(RESNET, weights=tmp_path / "old.pt").weights_digest
        == load_backbone(RESNET, weights=full).weights_digest
    )


def test_a_file_of_another_architecture_is_refused(state, tmp_path):
    save_file(state, tmp_path / "resnet.safetensors")
    with pytest.raises(BackboneError) as error:
        load_backbone("timm/test_vit", weights=tmp_path / "resnet.safetensors")
    assert str(error.value) == (
        f"{tmp_path / 'resnet.safetensors'} lacks 78 of the 78 tensors of this architecture "
        "(cls_token, pos_embed, patch_embed.proj.weight, ...). "
        "Name the architecture the file was made for."
    )


def test_tensors_of_another_shape_are_refused(state, tmp_path):
    odd = state | {"conv1.0.weight": torch.zeros(5, 3, 3, 3)}
    torch.save(odd, tmp_path / "odd.pt")
    with pytest.raises(BackboneError) as error:
        load_backbone(RESNET, weights=tmp_path / "odd.pt")
    ours = tuple(state["conv1.0.weight"].shape)
    assert str(error.value) == (
        f"{tmp_path / 'odd.pt'} has another shape for 1 tensors: conv1.0.weight is "
        f"(5, 3, 3, 3) there and {ours} here. Name the architecture the file was made for."
    )


def test_few_missing_tensors_are_all_named():
    own = ThreeBlocks()
    state = {name: value for name, value in own.state_dict().items() if not name.startswith("top")}
    with pytest.raises(BackboneError, match=r"a.pt lacks 2 of the 13 .* \(top.weight, top.bias\)"):
        load_weights(own, state, "a.pt")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BackboneError) as error:
        load_backbone(RESNET, weights=tmp_path / "none.pt")
    assert str(error.value) == (
        f"no weights file at {tmp_path / 'none.pt'}. Give a .safetensors or .pt file."
    )


ACCEPTED = (
    "Accepted: a .safetensors file, or a .pt file that holds a dict of tensors and nothing else, "
    "as torch.save(module.state_dict(), file) writes it."
)


class Trap:
    """Its pickle makes a folder when it is read by an ordinary unpickler."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda trap, path: path.write_bytes(
    pickle.dumps(trap))], ids=["by torch", "by pickle"])  # fmt: skip
def test_a_pickle_with_code_is_refused_and_never_run(save, tmp_path):
    trap = tmp_path / "trapped"
    save({"weight": Trap(str(trap))}, tmp_path / "bad.pt")
    with pytest.raises(BackboneError) as error:
        read_state(tmp_path / "bad.pt")
    assert str(error.value) == (
        f"{tmp_path / 'bad.pt'} cannot be read as weights: it holds more than tensors, or is "
        f"damaged, and nothing in it is ever run. {ACCEPTED}"
    )
    assert not trap.exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(ThreeBlocks(), tmp_path / "module.pt")
    with pytest.raises(BackboneError, match="it holds more than tensors, or is damaged"):
        read_state(tmp_path / "module.pt")


@pytest.mark.parametrize("content", [[torch.zeros(3)], {"a": 3}, {"model": {"a": "b"}}])
def test_what_is_no_dict_of_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "list.pt")
    with pytest.raises(BackboneError) as error:
        read_state(tmp_path / "list.pt")
    assert str(error.value) == (
        f"{tmp_path / 'list.pt'} cannot be read as weights: it holds no dict of tensors. {ACCEPTED}"
    )


@pytest.mark.parametrize("kept", [0, 5, 200, -100])
@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pt"])
def test_a_file_that_was_cut_off_is_refused(name, kept, state, tmp_path):
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BackboneError, match=r"cut\.\w+ cannot be read as weights: .+\. Accepted"):
        read_state(path)


def test_random_weights_are_the_same_each_time_and_leave_torchs_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = (load_backbone(RESNET, weights=None) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert first.weights_digest == second.weights_digest
    assert first.network.weights == "random"
    batch = pictures(2, (160, 160))
    np.testing.assert_array_equal(eager(first).embed(batch), eager(second).embed(batch))
    assert load_backbone(RESNET, weights="random").weights_digest == first.weights_digest
