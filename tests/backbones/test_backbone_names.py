"""From a name to a backbone: families, near misses, and what is known without torch."""

import json
import subprocess
import sys

import pytest

from pipeline.backbones import BACKBONES, describe, list_backbones, load_backbone, survey
from pipeline.errors import OptionError, UnknownNameError


def refusal(name, **options):
    with pytest.raises(UnknownNameError) as error:
        load_backbone(name, **options)
    return str(error.value)


def test_a_mistyped_bundled_name_is_refused_with_its_nearest():
    assert refusal("eficientnet_lite0") == (
        "unknown backbone 'eficientnet_lite0'. Did you mean 'efficientnet_lite0'? Accepted: "
        "efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, timm/<model>, "
        "torchvision/<model>."
    )


def test_a_name_without_its_family_finds_it():
    assert refusal("resnet18") == (
        "unknown backbone 'resnet18'. Did you mean 'timm/resnet18'? Accepted: timm/resnet18, "
        "torchvision/resnet18, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, "
        "timm/<model>, torchvision/<model>."
    )
    assert "Accepted: torchvision/vit_b_16, efficientnet_lite0" in refusal("vit_b_16")


def test_a_mistyped_name_of_a_family_is_refused_with_its_nearest():
    message = refusal("timm/resnet81")
    assert message.startswith("unknown backbone 'timm/resnet81'. Did you mean 'timm/resnet18'?")
    assert " more." in message
    message = refusal("torchvision/resnet19")
    assert "Did you mean 'torchvision/resnet1" in message


def test_an_unknown_tag_of_weights_is_refused_with_those_that_exist():
    assert refusal("timm/resnet18.a1_in2k") == (
        "unknown backbone 'timm/resnet18.a1_in2k'. Did you mean 'timm/resnet18.a1_in1k'? "
        "Accepted: timm/resnet18.a1_in1k, timm/resnet18.a2_in1k, timm/resnet18.a3_in1k, "
        "timm/resnet18.fb_ssl_yfcc100m_ft_in1k, timm/resnet18.fb_swsl_ig1b_ft_in1k, "
        "timm/resnet18.gluon_in1k, timm/resnet18.tv_in1k."
    )


@pytest.mark.parametrize("name", ["foo/bar", "timm/", "timm", "/resnet18", ""])
def test_an_unknown_family_is_refused_with_those_that_exist(name):
    message = refusal(name)
    assert message.startswith(f"unknown backbone {name!r}.")
    assert message.endswith(
        "Accepted: efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, timm/<model>, "
        "torchvision/<model>."
    )


def test_every_name_is_listed_bundled_ones_first():
    names = list_backbones()
    assert names[: len(BACKBONES)] == list(BACKBONES)
    assert {"timm/resnet18", "torchvision/resnet18", "torchvision/vit_b_16"} <= set(names)
    assert len(names) == len(set(names)) > 1000


def test_a_description_is_that_of_the_loaded_backbone():
    options = {"pooling": "gem", "image_size": 96, "resize": "squash"}
    described = survey("timm/test_resnet", weights="random", precision="float32",
                       decoder="pil", store_dtype="float32", **options)  # fmt: skip
    backbone = load_backbone("timm/test_resnet", weights=None, **options)
    assert described.spec == backbone.spec(decoder="pil", store_dtype="float32")
    assert described.layers == backbone.layers
    assert described.weights == "random"


def test_the_description_of_a_bundled_backbone_follows_its_options():
    spec = describe("efficientnet_lite0", precision="float32", image_size=128, resize="pad",
                    pooling="max", store_dtype="float32")  # fmt: skip
    assert spec.preprocess.image_size == (128, 128)
    assert spec.preprocess.resized_side() == (146, 146)
    assert (spec.preprocess.resize, spec.pooling, spec.store_dtype) == ("pad", "max", "float32")
    layers = survey("efficientnet_lite2", pooling="grid2").layers
    assert {name: layer.width for name, layer in layers.items()} == {
        "blocks.0": 64, "blocks.1": 96, "blocks.2": 192, "blocks.3": 352, "blocks.4": 480,
        "blocks.5": 832, "blocks.6": 1408, "features": 1280,
    }  # fmt: skip


def test_a_bundled_backbone_refuses_the_class_token_that_it_lacks():
    with pytest.raises(OptionError, match="pooling cls needs a class token, and this network has"):
        describe("efficientnet_lite0", pooling="cls")


@pytest.mark.parametrize("size", [0, -3])
def test_an_image_size_without_pixels_is_refused(size):
    with pytest.raises(OptionError) as error:
        describe("efficientnet_lite0", image_size=size)
    assert str(error.value) == (
        f"image size is {size}, but must be a number of pixels above 0, like 224."
    )


def test_a_bundled_backbone_is_described_without_torch_and_without_openvinos_statistics():
    program = """
import json, sys
from pipeline.backbones import describe, survey
heavy = [name for name in ("torch", "timm", "torchvision", "sklearn") if name in sys.modules]
spec = describe()
heavy += [name for name in ("torch", "timm", "torchvision", "sklearn") if name in sys.modules]
print(json.dumps([heavy, sys.modules.get("openvino_telemetry", "absent"), spec.to_json()]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy, telemetry, spec = json.loads(done.stdout)
    assert heavy == []
    assert telemetry is None  # openvino took its own silent stub
    assert spec == describe().to_json()
