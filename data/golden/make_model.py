"""Make the golden model files: models of every format version, which must open for ever.

Run from the repository's root: ``python data/golden/make_model.py``. As with the caches, a
golden file is never made again once its format is released. All numbers are exact in binary
and follow from formulas that ``tests/test_golden_files.py`` computes by itself; the steps are
our own, so no version of scikit-learn stands between the file and its reader.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pipeline.heads.ridge import LooRidgeClassifier, LooRidgeRegressor
from sklearn.pipeline import Pipeline

from pipeline.digest import digest_arrays, digest_bytes
from pipeline.fusion import ConcatFusion
from pipeline.model import TransferModel
from pipeline.results import Candidate, TargetResults
from pipeline.samples import Split
from pipeline.spec import EmbeddingSpec, Preprocessing

FOLDER = Path(__file__).parent
LAYERS = {"tiny/blocks.0": 2, "tiny/features": 3}
IDS = ("bird/amsel.jpg", "cat/zoë.jpg", "cat/猫,1.jpg", "owl/😀.png")


def model_v1() -> None:
    """Write two targets on two layers, weights that travel, a split with groups."""
    state = {
        "conv.weight": (np.arange(12, dtype=np.float32) / 8).reshape(2, 6),
        "bn.num_batches_tracked": np.array(7, np.int64),
    }
    spec = EmbeddingSpec(
        "tiny",
        digest_arrays(state).hex(),
        Preprocessing((32, 48), resize="pad", interpolation="bilinear"),
        "mean",
        "float32",
        decoder="pil",
        store_dtype="float32",
    )
    model = TransferModel(
        specs={"tiny": spec},
        layers=LAYERS,
        heads={"label": _classifier(), "größe/cm": _regressor()},
        results={
            "label": TargetResults(
                "class",
                {"accuracy": 0.5, "balanced_accuracy": 0.5, "macro_f1": 0.25, "majority": 0.5,
                 "log_loss": 0.75, "ece": None},
                n_train=3, n_test=1, layers=tuple(LAYERS), fusion="concat", head="ridge",
                fusions=(
                    Candidate("concat", "ridge", tuple(LAYERS), "cv",
                              {"accuracy": 0.5, "log_loss": 0.5, "log_loss_se": None}),
                ),
            ),
            "größe/cm": TargetResults(
                "number", {"r2": 0.5, "mae": 1.25}, n_train=3, n_test=1, layers=tuple(LAYERS),
                fusion="concat", head="ridge",
            ),
        },
        split=Split(
            IDS,
            tuple(digest_bytes(id.encode()) for id in IDS),
            ("train", "test", "val", "train"),
            seed=3,
            groups=("", "z", "m", ""),
            untested=("owl",),
        ),
        states={"tiny": state},
    )  # fmt: skip
    model.save(FOLDER / "model-v1.safetensors")


def _fuser() -> ConcatFusion:
    fuser = ConcatFusion({"tiny/blocks.0": slice(0, 2), "tiny/features": slice(2, 5)})
    fuser.fit(np.zeros((2, 5), np.float32))
    fuser.offset_ = np.arange(5) / 4
    fuser.factor_ = np.array([1.0, 2.0, 0.5, 1.0, 4.0])
    return fuser


def _classifier() -> Pipeline:
    head = LooRidgeClassifier()
    head.classes_, head.n_features_in_ = np.array(["amsel", "猫 cat", "owl"]), 5
    head.alpha_, head.temperature_, head.losses_ = 1.0, 0.5, [0.5, float("inf")]
    head.coef_ = (np.arange(15) % 4 - 1.5).reshape(5, 3)
    head.intercept_ = np.array([0.25, -0.5, 0.0])
    return Pipeline([("fusion", _fuser()), ("head", head)])


def _regressor() -> Pipeline:
    head = LooRidgeRegressor()
    head.n_features_in_, head.alpha_, head.losses_ = 5, 10.0, [2.0]
    head.coef_ = np.arange(5.0)[:, None] / 2
    head.intercept_ = np.array([40.0])
    return Pipeline([("fusion", _fuser()), ("head", head)])


if __name__ == "__main__":
    model_v1()
