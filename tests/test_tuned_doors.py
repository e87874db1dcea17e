"""The estimators with `finetune_blocks`, and tuned modules of the user's own."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from tiny_networks import SQUARE, ThreeBlocks
from tuning_world import TAPS, model_of, slants, stripe, striped, three_blocks

from pipeline import TransferClassifier, TransferModel, tune
from pipeline.backbones import load_backbone
from pipeline.errors import OptionError, UnknownNameError
from pipeline.finetuning import judging


@pytest.fixture
def always(monkeypatch):
    """Keep the tuned network whatever the few validation rows say."""
    monkeypatch.setattr(judging.Judge, "better", lambda *_: True)


def own_backbone():
    return load_backbone(ThreeBlocks(), name="own", layers=TAPS, preprocess=SQUARE)


PICTURES = [stripe(row, kind) for row, kind in enumerate(slants(60))]


def test_a_classifier_tunes_its_network_and_predicts_with_it(always):
    clf = TransferClassifier(own_backbone(), head="ridge", finetune_blocks=1)
    clf.fit(PICTURES, slants(60))
    (spec,) = clf.model_.specs.values()
    assert spec.weights_digest != clf.backbone.weights_digest
    assert (clf.tuning_.kept, len(clf.tuning_.epochs) > 0) == ("tuned", True)
    proba = clf.predict_proba(PICTURES[:5])
    np.testing.assert_allclose(proba, clf.model_.predict_proba(PICTURES[:5]), atol=1e-6)
    again = pickle.loads(pickle.dumps(clf))
    assert again.tuning_.tuned_loss == clf.tuning_.tuned_loss
    np.testing.assert_array_equal(again.predict_proba(PICTURES[:5]), proba)
    assert clone(clf).get_params()["finetune_blocks"] == 1


def test_where_tuning_does_not_help_the_classifier_is_the_frozen_one(monkeypatch):
    monkeypatch.setattr(judging.Judge, "better", lambda *_: False)
    backbone = own_backbone()
    frozen = TransferClassifier(backbone, head="ridge").fit(PICTURES, slants(60))
    tuned = TransferClassifier(backbone, head="ridge", finetune_blocks=1)
    tuned.fit(PICTURES, slants(60))
    assert (frozen.tuning_, tuned.tuning_.kept) == (None, "frozen")
    np.testing.assert_array_equal(
        tuned.predict_proba(PICTURES[:5]), frozen.predict_proba(PICTURES[:5])
    )


def test_groups_stay_together_when_rows_are_set_aside(always):
    groups = np.arange(60) // 6
    clf = TransferClassifier(own_backbone(), head="ridge", finetune_blocks=1)
    clf.fit(PICTURES, slants(60), groups=groups)
    split = clf.model_.split
    by_group = {}
    for group, part in zip(split.groups, split.parts, strict=True):
        by_group.setdefault(group, set()).add(part)
    assert len(by_group) == 10
    assert all(len(parts) == 1 for parts in by_group.values())
    assert {"train", "val"} == set(split.parts)


@pytest.mark.parametrize(
    ("options", "fitted", "sentence"),
    [
        ({"finetune_blocks": -1}, {}, "finetune_blocks is -1, but must be 0, which leaves"),
        ({"finetune_blocks": "2"}, {}, "finetune_blocks is '2', but must be 0, which leaves"),
        ({"finetune_blocks": None}, {}, "finetune_blocks is None, but must be 0, which leaves"),
        ({"finetune_blocks": 1, "head": "knn"}, {}, "the head knn is not linear in the layers: "),
        ({"finetune_blocks": 1}, {"sample_weight": np.ones(60)}, "sample_weight was given, but"),
        ({"finetune_blocks": 9}, {}, "blocks is 9, but own has 4 up to the layer"),
    ],
)
def test_what_cannot_be_tuned_is_refused(options, fitted, sentence):
    clf = TransferClassifier(own_backbone(), **{"head": "ridge", **options})
    with pytest.raises(OptionError) as refused:
        clf.fit(PICTURES, slants(60), **fitted)
    assert sentence in str(refused.value)


def test_a_tuned_module_of_ones_own_is_filled_again_from_the_file(always, tmp_path):
    samples = striped(60)
    model = model_of(samples, own_backbone())
    tuned = tune(model, samples, 1, max_epochs=1, views=1)
    tuned.save(tmp_path / "m.safetensors")
    proba = tuned.predict_proba(PICTURES[:5])
    module = ThreeBlocks()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    given = load_backbone(module, name="own", layers=TAPS, preprocess=SQUARE)
    loaded = TransferModel.load(tmp_path / "m.safetensors", backbone=given)
    np.testing.assert_allclose(loaded.predict_proba(PICTURES[:5]), proba, atol=1e-5)
    assert all((module.state_dict()[name] == value).all() for name, value in before.items())
    with pytest.raises(OptionError, match="the model was trained on a module of your own, 'own'"):
        TransferModel.load(tmp_path / "m.safetensors").predict(PICTURES[:1])


def test_an_option_that_does_not_exist_is_refused_with_the_nearest():
    model = model_of(samples := striped(24), three_blocks())
    with pytest.raises(UnknownNameError, match="Did you mean 'max_epochs'"):
        tune(model, samples, 1, max_epoch=3)
