"""The scikit-learn door: estimators that take pictures instead of numbers.

``X`` is a sequence of paths, PIL images, or a uint8 array ``(n, H, W, 3)`` or ``(n, H, W)``.
They clone, pickle, and work in `cross_val_score`, `GridSearchCV` and `make_pipeline`; each
picture is embedded once however many folds ask for it.
"""

from pipeline.estimators.embedder import LayerEmbedder
from pipeline.estimators.multi_task import MultiTaskTransfer
from pipeline.estimators.transfer import TransferClassifier, TransferRegressor

__all__ = ["LayerEmbedder", "MultiTaskTransfer", "TransferClassifier", "TransferRegressor"]
