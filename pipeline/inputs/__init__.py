"""Inputs: from files and pictures in memory to batches that a network takes.

::

    source -> reading.read -> Content     bytes or pixels, and the digest that names them
           -> decoding.decode_image       upright 8-bit RGB, decided by the file alone
           -> augmentation.View           as it is, or a little different for training
           -> preparation.prepare         resized and cut into a slot of the batch
    loading.load                          the same for planned batches, in threads

Decoders (torchcodec, PIL, pillow-heif) are imported here and nowhere else.
"""

from pipeline.inputs.augmentation import View
from pipeline.inputs.colours import as_rgb
from pipeline.inputs.decoding import (
    MAX_PIXELS,
    Decoder,
    available_decoder,
    check_decoder,
    decode_image,
)
from pipeline.inputs.loading import Loaded, Slot, auto_workers, load
from pipeline.inputs.preparation import prepare
from pipeline.inputs.reading import Content, digest_all, read

__all__ = [
    "MAX_PIXELS",
    "Content",
    "Decoder",
    "Loaded",
    "Slot",
    "View",
    "as_rgb",
    "auto_workers",
    "available_decoder",
    "check_decoder",
    "decode_image",
    "digest_all",
    "load",
    "prepare",
    "read",
]
