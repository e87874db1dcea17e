"""The model: what predicts, and its file.

::

    transfer_model.py  TransferModel
    networks.py        how its backbones are built again, and which travel in its file
    values.py          what it has learnt
    torch_module.py    networks and linear heads as one torch module
    in_memory.py       inputs to a matrix in memory
    predictions.py     predictions as a table
    persistence.py     a model to its file and back
    file.py            the container: one safetensors file that checks itself
    steps.py           fitted steps as JSON, tensors and skops files
    skops_bytes.py     scikit-learn estimators as bytes that are always the same
"""

from pipeline.model.file import read_model_file
from pipeline.model.in_memory import Embedded, embed_in_memory
from pipeline.model.networks import MODULE, rebuilt, travelling_states
from pipeline.model.predictions import heldout_table, predictions_table, write_table
from pipeline.model.torch_module import folded_heads
from pipeline.model.transfer_model import TransferModel, as_samples, spread

__all__ = [
    "MODULE",
    "Embedded",
    "TransferModel",
    "as_samples",
    "embed_in_memory",
    "folded_heads",
    "heldout_table",
    "predictions_table",
    "read_model_file",
    "rebuilt",
    "spread",
    "travelling_states",
    "write_table",
]
