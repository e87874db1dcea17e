"""Extraction: the one loop from inputs to embeddings, and the same with parts as its sink."""

from pipeline.extraction.clock import Clock
from pipeline.extraction.forward import Forward, forward_of
from pipeline.extraction.loop import Extracted, auto_batch_size, extract, plan_batches
from pipeline.extraction.parts import write_parts

__all__ = [
    "Clock",
    "Extracted",
    "Forward",
    "auto_batch_size",
    "extract",
    "forward_of",
    "plan_batches",
    "write_parts",
]
