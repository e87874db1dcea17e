"""Split: which rows are held out, by id and by content, made once and kept with the model."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.digest import DIGEST_SIZE
from pipeline.errors import InputError, OptionError
from pipeline.samples.column import clean_column
from pipeline.samples.dealing import Component, components, hold_out
from pipeline.samples.target import Target

__all__ = ["PART_NAMES", "Part", "Split", "read_parts"]

Part = Literal["train", "val", "test"]

PART_NAMES: dict[str, Part] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""What the parts of a given split may be called, as folders or in a column."""


@dataclass(frozen=True)
class Split:
    """Which rows are held out.

    Rows stand in the order of their ids, so the split of a table is the split of the same
    table in another order.

    Parameters
    ----------
    ids : tuple of str
        Every row, sorted.
    digests : tuple of bytes
        The content of each row, 16 bytes each.
    parts : tuple of {"train", "val", "test"}
        ``test`` is held out, ``train`` and ``val`` are trained on; ``val`` comes only from
        a given split with three parts, and is the validation of fine-tuning.
    seed : int
        Seed of the split.
    groups : tuple of str, optional
        The group of each row, ``""`` for a row of its own.
    untested : tuple of str
        Classes without a held-out row.

    Examples
    --------
    >>> target = Target.decide("label", list("aaaaabbbbb"))
    >>> ids, digests = [f"{i}.jpg" for i in range(10)], [bytes([i]) * 16 for i in range(10)]
    >>> split = Split.make(ids, digests, target, test_fraction=0.2, seed=0)
    >>> len(split.train_ids), len(split.test_ids), split.untested
    (8, 2, ())
    """

    ids: tuple[str, ...]
    digests: tuple[bytes, ...]
    parts: tuple[Part, ...]
    seed: int = 0
    groups: tuple[str, ...] | None = None
    untested: tuple[str, ...] = ()

    @classmethod
    def make(
        cls,
        ids: Sequence[str],
        digests: Sequence[Any],
        target: Target | None,
        *,
        test_fraction: float,
        seed: int,
        groups: Iterable[Any] | None = None,
        given: Sequence[str] | None = None,
        labelled: NDArray[np.bool_] | None = None,
    ) -> Split:
        """Hold out a part of the rows, or take the split that was given.

        Rows of equal content or of one group are never divided. Each class gives its share,
        at least one row where the fraction allows as many rows as there are classes, and
        always keeps one to train on; what it cannot give is said in `untested`. Rows without
        any label are never held out (nothing could be compared; stages that need no labels
        use them). Rows labelled otherwise, but not in ``target``, are divided like a class.

        In a given split ``test`` is held out, else ``val``. A part without labels tests
        nothing: then the next one is held out, and if there is none, the rest is divided as
        above; unlabelled rows of ``test`` stay out of training in any case. Rows outside
        the parts are trained on.

        Parameters
        ----------
        ids : sequence of str
            Unique names of the rows.
        digests : sequence of bytes, or ndarray of shape (n, 16)
            Content digests of the rows.
        target : Target, optional
            What to stratify by (kind ``class``); see `stratifier`.
        test_fraction : float
            Share of the labelled rows to hold out, from 0 to below 1; 0 holds out nothing,
            a given split included.
        seed : int
            Another seed, another split.
        groups : sequence, optional
            A value for each row; a missing value is a group of its own.
        given : sequence of {"train", "val", "test", ""}, optional
            The given split.
        labelled : ndarray of shape (n,), bool, optional
            Rows with a label in any target; by default those that ``target`` has.

        Raises
        ------
        OptionError
            For a fraction outside 0 to 1.
        InputError
            For ids that repeat, columns of another length, or a given split that leaves no
            labelled row to train on.
        """
        if not 0 <= test_fraction < 1:
            raise OptionError(
                f"test_fraction is {test_fraction}, but must be at least 0 and below 1. "
                "0.2 holds out a fifth of the rows, 0 none."
            )
        order = sorted(range(len(ids)), key=ids.__getitem__)
        _same_length(ids, digests=digests, target=target, given=given, labelled=labelled)
        names = tuple(ids[row] for row in order)
        # numpy's fixed-width bytes lose the zeros at their end.
        contents = tuple(bytes(digests[row]).ljust(DIGEST_SIZE, b"\0") for row in order)
        kinship = None if groups is None else _group_names(groups)
        _same_length(ids, groups=kinship)
        _refuse_repeats(names)
        rows = _Rows(
            names,
            contents,
            None if kinship is None else tuple(kinship[row] for row in order),
            _strata(target, labelled, order),
        )
        parts = _parts(
            rows, None if given is None else [given[row] for row in order], test_fraction, seed
        )
        held = {s for s, part in zip(rows.strata, parts, strict=True) if part == "test"}
        classes = target.classes if target is not None and target.kind == "class" else ()
        untested = tuple(str(c) for place, c in enumerate(classes) if place not in held)
        return cls(names, contents, parts, seed, rows.groups, untested)

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Rows that are trained on (or, unlabelled, may be), ``val`` included."""
        return self._pick(self.ids, held_out=False)

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Rows that are held out."""
        return self._pick(self.ids, held_out=True)

    @property
    def train_digests(self) -> tuple[bytes, ...]:
        """Contents that are trained on."""
        return self._pick(self.digests, held_out=False)

    @property
    def test_digests(self) -> tuple[bytes, ...]:
        """Contents that are held out."""
        return self._pick(self.digests, held_out=True)

    @property
    def crossing(self) -> int:
        """Held-out rows whose content or group is trained on too: only a given split has any."""
        pairs = list(zip(self.digests, self.groups or ("",) * len(self.ids), strict=True))
        trained = [pair for pair, part in zip(pairs, self.parts, strict=True) if part != "test"]
        contents, groups = {pair[0] for pair in trained}, {pair[1] for pair in trained} - {""}
        held = [pair for pair, part in zip(pairs, self.parts, strict=True) if part == "test"]
        return sum(digest in contents or group in groups for digest, group in held)

    def rows(self, ids: Sequence[str], part: Part) -> NDArray[np.int64]:
        """Find the positions in ``ids`` of the rows of one part.

        Examples
        --------
        >>> split = Split(("a", "b"), (b"1", b"2"), ("test", "train"))
        >>> split.rows(["b", "new", "a"], "test").tolist()
        [2]
        """
        names = {name for name, own in zip(self.ids, self.parts, strict=True) if own == part}
        return np.array([row for row, name in enumerate(ids) if name in names], dtype=np.int64)

    def trained_on_all(self) -> Split:
        """Say that every row is trained on now: what a refit on all rows does."""
        train: Part = "train"
        return dataclasses.replace(self, parts=(train,) * len(self.ids), untested=())

    def with_validation(self, strata: Mapping[bytes, int], fraction: float) -> Split:
        """Set a part of the training rows aside, which no network is to be trained on.

        They become ``val``; rows of equal content or of one group stay together, and each
        stratum gives its share. Where the given split has such rows already, it stays.

        Parameters
        ----------
        strata : mapping of bytes to int
            By content, of the rows that have a label; the others are never set aside.
        fraction : float
        """
        if "val" in self.parts:
            return self
        own = _Rows(self.ids, self.digests, self.groups, tuple(map(strata.get, self.digests)))
        rows = [row for row, part in enumerate(self.parts) if part == "train"]
        held = set(hold_out(own.components(self.seed, rows), fraction))
        parts = (("val" if row in held else part) for row, part in enumerate(self.parts))
        return dataclasses.replace(self, parts=tuple(parts))

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON values, digests in hex."""
        fields = dataclasses.asdict(self)
        return {**fields, "digests": [digest.hex() for digest in self.digests]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Split:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            When a field is missing, unknown, of another type or another length.
        """
        try:
            fields = {**value, "digests": [bytes.fromhex(digest) for digest in value["digests"]]}
            for name in ("ids", "digests", "parts", "groups", "untested"):
                fields[name] = None if value[name] is None else tuple(fields[name])
            split = cls(**fields)
            known = set(split.parts) <= set(get_args(Part))
            sizes = {len(column) for column in (split.ids, split.digests, split.parts)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is not a split as the package writes it: {error!r}.") from None
        if not known or len(sizes) > 1 or len(split.groups or split.ids) != len(split.ids):
            raise InputError("this is not a split as the package writes it: its columns differ.")
        return split

    def _pick(self, column: tuple[Any, ...], *, held_out: bool) -> tuple[Any, ...]:
        pairs = zip(column, self.parts, strict=True)
        return tuple(value for value, part in pairs if (part == "test") == held_out)


def read_parts(column: Iterable[Any], ids: Sequence[str] | None = None) -> tuple[str, ...]:
    """Read a column that says where each row belongs: train, val, test, or ``""``.

    Raises
    ------
    InputError
        For any other word.

    Examples
    --------
    >>> read_parts(["train", "Validation", None])
    ('train', 'val', '')
    """
    parts = []
    for row, cell in enumerate(clean_column(column)):
        word = "" if cell is None else str(cell).strip().lower()
        if word and word not in PART_NAMES:
            place = f"row {row + 1}" if ids is None else ids[row]
            raise InputError(
                f"the split of {place} is {cell!r}. Accepted: {', '.join(PART_NAMES)}, or an "
                "empty cell. Mend the column, or leave the split to the seed."
            )
        parts.append(PART_NAMES[word] if word else "")
    return tuple(parts)


@dataclass(frozen=True)
class _Rows:
    """What decides where a row goes, in the order of the ids."""

    ids: tuple[str, ...]
    digests: tuple[bytes, ...]
    groups: tuple[str, ...] | None
    strata: tuple[int | None, ...]  # None: no label at all

    def components(self, seed: int, rows: Sequence[int]) -> list[Component]:
        keys: list[Sequence[Any]] = [self.digests] + ([self.groups] if self.groups else [])
        return components(self.ids, self.strata, keys, seed, rows)


def _parts(
    rows: _Rows, given: Sequence[str] | None, fraction: float, seed: int
) -> tuple[Part, ...]:
    count = len(rows.ids)
    parts: list[Part] = ["train"] * count
    if fraction == 0:
        return tuple(parts)
    tested = Counter(p for p, s in zip(given or (), rows.strata, strict=False) if s is not None)
    if given is not None and (tested["test"] or tested["val"]):
        if tested["test"]:
            parts = [PART_NAMES.get(part, "train") for part in given]
        else:
            parts = ["train" if part in ("train", "") else "test" for part in given]
        _refuse_untrained(parts, rows)
        return tuple(parts)
    free = [row for row in range(count) if given is None or given[row] != "test"]
    for row in set(range(count)) - set(free):
        parts[row] = "test"
    for row in hold_out(rows.components(seed, free), fraction):
        parts[row] = "test"
    return tuple(parts)


def _strata(
    target: Target | None, labelled: NDArray[np.bool_] | None, order: Sequence[int]
) -> tuple[int | None, ...]:
    """Class of each row, -1 for a row labelled elsewhere only, None for one without labels."""
    if target is None or target.kind != "class":
        codes = np.full(len(order), -1)
        has_label = np.ones(len(order), bool) if target is None else target.present
    else:
        codes, has_label = target.encode(), target.present
    has_label = has_label if labelled is None else has_label | np.asarray(labelled, dtype=bool)
    return tuple(int(codes[row]) if has_label[row] else None for row in order)


def _group_names(groups: Iterable[Any]) -> tuple[str, ...]:
    return tuple("" if cell is None else _group_name(cell) for cell in clean_column(groups))


def _group_name(cell: Any) -> str:
    # A cache keeps whole numbers as float64: group 3 is group 3.0.
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _same_length(ids: Sequence[str], **columns: Any) -> None:
    for name, column in columns.items():
        if column is not None and len(column) != len(ids):
            raise InputError(
                f"{name} has {len(column)} rows, but there are {len(ids)} ids. "
                "Give one value for each row."
            )


def _refuse_repeats(names: Sequence[str]) -> None:
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise InputError(
            f"{len(repeated)} ids stand more than once, the first is {repeated[0]!r}. "
            "Every row needs an id of its own."
        )


def _refuse_untrained(parts: Sequence[Part], rows: _Rows) -> None:
    kept = (s is not None and p != "test" for s, p in zip(rows.strata, parts, strict=True))
    if not any(kept):
        raise InputError(
            "the given split leaves no labelled row to train on: all of them are held out. "
            f"Mark rows with {', '.join(PART_NAMES)}, or leave the split to the seed."
        )
