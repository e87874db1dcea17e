"""The options of every command, one schema for command line, TOML file and Python.

None means "not given": an existing cache or model answers first, then the backbone's own
ways, then the ``auto`` of whoever owns the noun.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import OptionError
from pipeline.memory import parse_bytes
from pipeline.spec import Resize, StoreDtype

__all__ = [
    "EmbedOptions",
    "FinetuneOptions",
    "OnBadInput",
    "TrainOptions",
    "TuneOptions",
    "parse_count",
    "parse_target_kinds",
]

OnBadInput = Literal["skip", "fail"]


@dataclass(frozen=True)
class EmbedOptions:
    """Options of stage 1.

    Parameters
    ----------
    backbone
        The frozen network: a bundled name, timm/<model> or torchvision/<model>.
        [default: the cache's, else efficientnet_lite0]
    layers
        Which layers to store: auto, all, or names joined by commas.
        [default: the cache's, else auto]
    pooling
        How a map becomes a vector: auto, mean, max, mean+max, cls, gem, grid2 or grid4.
        [default: the cache's, else auto]
    image_size
        Pixels a side that the network sees. [default: the cache's, else the network's own]
    resize
        crop keeps the centre, squash ignores the aspect ratio, pad keeps all of the picture.
        [default: the cache's, else the network's own]
    batch_size
        Pictures in one forward pass: auto, or a number.
    num_workers
        Threads that read and decode: auto, or a number. auto is one a processor, at most 16.
    device
        auto, cpu, cuda, cuda:N or mps.
    precision
        Arithmetic of the network: auto, float32, bfloat16 or float16.
        [default: the cache's, else auto]
    store_dtype
        Type of the stored values. [default: the cache's, else float16]
    weights
        A .safetensors or .pt file for the architecture that --backbone names.
        [default: the cache's, else those that the name stands for]
    no_forward_cache
        Neither look for the prepared network in the user's cache folder, nor keep it there.
    max_pixels
        Larger pictures are refused, before any memory is asked for. [default: 178,956,970]
    on_bad_input
        skip lists unreadable files and goes on; fail names them all and stops.
    prune
        Drop the rows of inputs that are gone, also when they are more than a tenth.
    """

    backbone: str | None = None
    layers: str | None = None
    pooling: str | None = None
    image_size: int | None = None
    resize: Resize | None = None
    batch_size: str = "auto"
    num_workers: str = "auto"
    device: str = "auto"
    precision: str | None = None
    store_dtype: StoreDtype | None = None
    weights: Path | None = None
    no_forward_cache: bool = False
    max_pixels: int | None = None
    on_bad_input: OnBadInput = "skip"
    prune: bool = False

    def __post_init__(self) -> None:
        parse_count("batch size", self.batch_size)
        parse_count("number of workers", self.num_workers)
        if self.image_size is not None and self.image_size < 1:
            raise OptionError(
                f"image size is {self.image_size}, but must be at least 1 pixel. "
                "224 is what most networks were trained with."
            )
        if self.max_pixels is not None and self.max_pixels < 1:
            raise OptionError(
                f"max pixels is {self.max_pixels}, but must be at least 1. A photo of 6,000 x "
                "4,000 has 24,000,000."
            )


@dataclass(frozen=True)
class TrainOptions:
    """Options of stage 2.

    Parameters
    ----------
    target
        The column to predict; given several times, each gets a head in the one model.
        [default: the one called label, or the only one]
    target_kind
        Overrules what a column is taken for: NAME=class, NAME=multilabel or NAME=number.
        [default: its values decide]
    fusion
        How layers become one matrix: auto, last, single:LAYER, average, weighted or concat; for
        ridge also evidence, late, forward or selection.
    head
        What predicts: auto, ridge, logistic, svm, knn, lda, forest, boosting, mlp or linear; or,
        fusing the layers themselves, layer_ridge or best.
    class_weight
        balanced weighs rare classes up, in every target that has classes.
    test_fraction
        Share of the rows held out for the figures; 0 holds none out.
    split_column
        A column that says train, val or test for each row, instead of a random split.
        [default: the one called split, if there is one]
    group
        A column (patient, document, burst of photos) whose equal values never stand on both
        sides of a split. [default: every row for itself]
    memory
        Most memory to use, like 8GB; rows that do not fit are read in pieces.
        [default: half of what is free]
    refit
        Fit the winner on all rows after the held-out figures are taken.
    seed
        Seed of every random choice.
    """

    target: tuple[str, ...] = ()
    target_kind: tuple[str, ...] = ()
    fusion: str = "auto"
    head: str = "auto"
    class_weight: Literal["none", "balanced"] = "none"
    test_fraction: float = 0.2
    split_column: str | None = None
    group: str | None = None
    memory: str | None = None
    refit: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", _names(self.target))
        if not 0 <= self.test_fraction < 1:
            raise OptionError(
                f"test fraction is {self.test_fraction}, but must be at least 0 and below 1. "
                "0.2 holds a fifth of the rows out."
            )
        if self.memory is not None:
            parse_bytes(self.memory)
        if self.refit and self.test_fraction == 0:
            raise OptionError(
                "refit adds the held-out rows at the end, but with test fraction 0 none are held "
                "out. Leave one of the two out."
            )
        _refuse_seed(self.seed)


def _refuse_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise OptionError(
            f"seed is {seed}, but must be from 0 to {2**32 - 1}. Leave it out for the usual one."
        )


def _names(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Take one name, several, or none; each counts once.

    Examples
    --------
    >>> TrainOptions(target="age").target, TrainOptions(target=["age", "sex"]).target
    (('age',), ('age', 'sex'))
    """
    names = (given,) if isinstance(given, str) else tuple(given or ())
    for place, name in enumerate(names):
        if name in names[:place]:
            raise OptionError(
                f"target {name!r} is named twice, but every target gets one head. Name it once."
            )
    return names


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of stage 3.

    Parameters
    ----------
    blocks
        How many blocks of the network are trained, from the top.
    max_epochs
        Most passes over the training rows; it ends earlier when the validation rows gain no more.
    views
        How often each picture is looked at before training, once as it is and otherwise a little
        cut and shifted; these views take turns. 1 trains on the pictures as they are.
    flip
        Whether a view may be a mirror image: yes, no, or auto, which asks the validation rows
        whether mirror images keep their labels.
    lr
        Peak learning rate of the top block.
        [default: 0.004 for a convolutional network, 0.0001 for a transformer]
    decay
        Rate of a block as a share of that above it.
    batch_size
        Pictures in one step: auto, or a number.
    weighting
        How several targets share the network: equal, or uncertainty, which learns it.
    gradual
        Begin with the top block, and add one block an epoch.
    no_boundary_cache
        Run the blocks below in every epoch, instead of keeping what they give; views are then
        new in every epoch.
    device
        auto, cpu, cuda, cuda:N or mps.
    seed
        Seed of order and views. [default: that of the model's split]
    """

    blocks: int = 2
    max_epochs: int = 10
    views: int = 6
    flip: Literal["auto", "yes", "no"] = "auto"
    lr: float | None = None
    decay: float = 0.75
    batch_size: str = "auto"
    weighting: Literal["equal", "uncertainty"] = "equal"
    gradual: bool = False
    no_boundary_cache: bool = False
    device: str = "auto"
    seed: int | None = None

    def __post_init__(self) -> None:
        parse_count("batch size", self.batch_size)
        for name, value, usual in (
            ("blocks", self.blocks, "1 trains the top block, 2 are usual."),
            ("max epochs", self.max_epochs, "10 are usual."),
            ("views", self.views, "1 is the picture as it is, 6 add five augmented views."),
        ):
            if not isinstance(value, int):
                raise OptionError(f"{name} is {value!r}, but must be a whole number, like 2.")
            if value < 1:
                raise OptionError(f"{name} is {value}, but must be at least 1. {usual}")
        if self.lr is not None and not 0 < self.lr < 1:
            raise OptionError(
                f"lr is {self.lr}, but must be above 0 and below 1. Leave it out for 0.004 (0.0001 "
                "for a transformer)."
            )
        if not 0 < self.decay <= 1:
            raise OptionError(
                f"decay is {self.decay}, but must be above 0 and at most 1. 1 gives every block "
                "the same rate; leave it out for 0.75."
            )
        if self.seed is not None:
            _refuse_seed(self.seed)
        for name, choice, accepted in (
            ("flip", self.flip, ("auto", "yes", "no")),
            ("weighting", self.weighting, ("equal", "uncertainty")),
        ):
            if choice not in accepted:
                raise OptionError(f"{name} is {choice!r}, but must be {' or '.join(accepted)}.")


@dataclass(frozen=True)
class TuneOptions:
    """Whether `run` goes on to stage 3; `finetune` has more options.

    Parameters
    ----------
    finetune
        Train the top blocks of the network after the head, and keep what serves better.
    blocks
        How many blocks are trained, from the top.
    max_epochs
        Most passes over the training rows.
    """

    finetune: bool = False
    blocks: int = FinetuneOptions.blocks
    max_epochs: int = FinetuneOptions.max_epochs

    def __post_init__(self) -> None:
        FinetuneOptions(blocks=self.blocks, max_epochs=self.max_epochs)
        given = [
            name
            for name in ("blocks", "max_epochs")
            if getattr(self, name) != getattr(FinetuneOptions, name)
        ]
        if given and not self.finetune:
            shown = given[0].replace("_", "-")
            raise OptionError(
                f"--{shown} is an option of fine-tuning, which was not asked for. Add --finetune, "
                "or leave it out."
            )


def parse_count(what: str, value: str | int) -> int | None:
    """Read ``auto`` (None) or a positive whole number.

    Examples
    --------
    >>> parse_count("batch size", "auto"), parse_count("batch size", "16")
    (None, 16)
    """
    if value == "auto":
        return None
    if str(value).isascii() and str(value).isdigit() and int(value) > 0:
        return int(value)
    raise OptionError(f"{what} is {value!r}, but must be auto or a whole number above 0, like 16.")


def parse_target_kinds(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=KIND`` pairs.

    Examples
    --------
    >>> parse_target_kinds(("age=number",))
    {'age': 'number'}
    """
    kinds = {}
    for pair in pairs:
        name, equals, kind = pair.rpartition("=")
        if not equals or not name:
            raise OptionError(
                f"target kind is {pair!r}, but must be NAME=class, NAME=multilabel or NAME=number."
            )
        kinds[name] = kind
    return kinds
