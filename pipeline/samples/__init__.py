"""The values that everything else works on: samples, their targets, their split."""

from pipeline.samples.cell import guarded, unguarded
from pipeline.samples.choice import LABEL, choose_targets, stratifier
from pipeline.samples.column import Column, clean_column, stored_column
from pipeline.samples.dealing import folds
from pipeline.samples.listing import IMAGE_SUFFIXES
from pipeline.samples.sample_set import SampleSet
from pipeline.samples.split import PART_NAMES, Part, Split, read_parts
from pipeline.samples.table import frame_columns
from pipeline.samples.target import Kind, Target

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL",
    "PART_NAMES",
    "Column",
    "Kind",
    "Part",
    "SampleSet",
    "Split",
    "Target",
    "choose_targets",
    "clean_column",
    "folds",
    "frame_columns",
    "guarded",
    "read_parts",
    "stored_column",
    "stratifier",
    "unguarded",
]
