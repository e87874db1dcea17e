"""EmbeddingJob: one run of stage 1, in two steps: look at what there is, then do it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones import resolve_device
from pipeline.cache import EmbeddingStore, Failure, Part, PartFolder, digests_of, merge
from pipeline.config import EmbedOptions, parse_count
from pipeline.embedding.labels import same_columns, stored_columns
from pipeline.embedding.ledger import failures_among, nothing_usable
from pipeline.embedding.plan import (
    MOST_LOST,
    Plan,
    damaged_rows,
    make_plan,
    mark_of,
    open_batches,
    outdated_parts,
    refuse_losses,
    refuse_unreadable,
)
from pipeline.embedding.summary import Summary
from pipeline.embedding.wanted import wanted_backbones
from pipeline.errors import BadInputError, CacheError
from pipeline.extraction import (
    Clock,
    Forward,
    auto_batch_size,
    forward_of,
    plan_batches,
    write_parts,
)
from pipeline.progress import Progress

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.samples import SampleSet

__all__ = ["EmbeddingJob"]

_log = logging.getLogger(__name__)

_Todo = list[tuple[list[Sequence[int]], Mapping[str, int]]]
"""Batches that are left, and the layers that their rows need."""


class EmbeddingJob:
    """One run of stage 1: `prepare`, then `execute` under the lock of the cache.

    Parameters
    ----------
    samples, cache, options, backbones, keep
        As for `embed`.
    distrust : bool
        Look for damaged rows also where nothing else is to be done, and drop none.
    """

    def __init__(
        self,
        samples: SampleSet,
        cache: Path,
        options: EmbedOptions,
        backbones: str | Backbone | Sequence[str | Backbone] | None = None,
        *,
        keep: bool = False,
        distrust: bool = False,
    ) -> None:
        self.distrust = distrust
        self.samples, self.cache, self.options, self.keep = samples, cache, options, keep
        self.backbones = backbones if backbones is not None else options.backbone
        self.clock = Clock()
        self.computed = 0

    def prepare(self) -> None:
        """Settle backbones and layers, and find out which rows need work.

        Raises
        ------
        CacheError
            When more than a tenth of the rows would be dropped.
        CacheMismatchError, UnknownNameError, OptionError
            See `wanted_backbones`.
        """
        self.old = EmbeddingStore.open(self.cache) if self.cache.exists() else None
        self.wanted = wanted_backbones(self.backbones, self.options, self.old)
        self.specs = {one.spec.backbone: one.spec for one in self.wanted}
        self.layers = {name: n for one in self.wanted for name, n in one.layers.items()}
        held = {name for one in self.wanted for name in one.held}
        self.new_layers = {name: n for name, n in self.layers.items() if name not in held}
        self.columns = {} if self.keep else stored_columns(self.samples)
        self.marks = [mark_of(source) for source in self.samples.sources]
        self.damaged: frozenset[int] = frozenset()
        self.plan = self._planned()
        if self.old is None:
            return
        if (self.distrust or self._merge_is_due) and (damaged := damaged_rows(self.old)):
            self.damaged = damaged
            self.plan = self._planned()
        if not (self.options.prune or self.keep):
            lost = refuse_losses(self.samples, self.old, self.plan)
            if lost:
                _log.info("gone from the source, and from the cache: %d ids", lost)

    def outlook(self) -> str:
        """Say what is to be done, in a line: rows, layers and bytes."""
        fresh, kept = len(self.plan.fresh), len(self.plan.kept)
        before = [(len(self.samples) - fresh - kept, "failed before"), (kept, "held already")]
        rest = "".join(f", {count} {what}" for count, what in before if count)
        phases = self._phases()
        if not phases:
            return f"nothing to embed{rest}"
        backbones = ", ".join(f"{name} in {spec.precision}" for name, spec in self.specs.items())
        size = sum(len(rows) * self._row_bytes(layers) for rows, layers in phases)
        return (
            f"{sum(len(rows) for rows, _ in phases):,} images to embed with {backbones}: "
            f"{len(self.layers)} layers, {size / 1e6:,.1f} MB{rest}"
        )

    def execute(self, *, progress: bool = False) -> Summary:
        """Embed what is missing, and make the finished cache.

        Parameters
        ----------
        progress : bool
            Show how far it is.

        Raises
        ------
        BadInputError
            Under ``on_bad_input="fail"``; what is finished is kept for the next run.
        InputError
            When not one input can be used.
        CacheError
            When the disk has no room.
        """
        folder = PartFolder(self.cache)
        with nullcontext() if self.old is None else self.old:
            parts = self._parts(folder)
            batch_size, device = self._settings(parts)
            todo = self._todo(parts, batch_size)
            self.clock.start = time.perf_counter() - self.clock.began
            if todo:
                self._refuse_full_disk(todo)
                self._write_parts(folder, todo, batch_size, device, progress)
                parts = self._parts(folder)
            self._refuse_failures(parts)
            if self._merge_is_due:
                with self.clock.spent_on("write"):
                    self._merge(parts)
        folder.remove()  # a kill right after a merge leaves it empty
        with EmbeddingStore.open(self.cache) as store:
            return Summary.of(store, self.clock, self.computed)

    def _parts(self, folder: PartFolder) -> list[Part]:
        """Read what runs have left in parts; what the cache knows better is dropped."""
        found = folder.read(self.specs.values()).sound
        outdated = outdated_parts(self.samples, self.marks, self.plan, found)
        for part in outdated:
            folder.drop(part)
        return [part for part in found if part not in outdated]

    def _planned(self) -> Plan:
        by_content = bool(self.new_layers)
        return make_plan(
            self.samples, self.marks, self.old, by_content=by_content, damaged=self.damaged
        )

    def _phases(self) -> list[tuple[list[int], Mapping[str, int]]]:
        """Pair the rows that need work with the layers that they need."""
        phases = [(self.plan.fresh, self.layers), (self.plan.kept, self.new_layers)]
        return [(rows, layers) for rows, layers in phases if rows and layers]

    @cached_property
    def _merge_is_due(self) -> bool:
        """Whether the cache will be written: it lacks something, or says something else."""
        if self.old is None or self.plan.fresh or self.new_layers:
            return True
        return PartFolder(self.cache).count() > 0 or not self._is_current(self.old)

    def _is_current(self, old: EmbeddingStore) -> bool:
        """Whether rows, labels and ledger are those that a merge without parts would write."""
        ledger = {failure.id: failure.reason for failure in old.failed}
        ids = self._ids()
        rows = [place for place, name in enumerate(ids) if name not in ledger]
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        unread = dict(self.samples.failed)
        return (
            tuple(ids[place] for place in rows) == old.ids
            and same_columns(columns, old.targets)
            and ledger == {name: ledger[name] for name in ids if name in ledger} | unread
        )

    def _ids(self) -> tuple[str, ...]:
        """Every input that shall have a row or a reason, in the order of the rows."""
        if self.old is None or not self.keep:
            return self.samples.ids
        unread = {name for name, _ in self.samples.failed}
        held = [name for row, name in enumerate(self.old.ids) if row not in self.damaged]
        failed = [failure.id for failure in self.old.failed]
        names = dict.fromkeys((*held, *failed, *self.samples.ids))
        return tuple(name for name in names if name not in unread)

    def _settings(self, parts: Sequence[Part]) -> tuple[int, str]:
        """Batch size and device: as given, else as in the parts of a killed run, else by rule."""
        held = parts[0].settings if parts else {}
        asked = self.options.device
        device = resolve_device(held.get("device", asked) if asked == "auto" else asked)
        size = parse_count("batch size", self.options.batch_size) or held.get("batch_size")
        return size or auto_batch_size(device), device

    def _todo(self, parts: Sequence[Part], batch_size: int) -> _Todo:
        """Plan batches, and leave out those that lie in parts."""
        todo: _Todo = []
        for rows, layers in self._phases():
            batches = plan_batches(rows, batch_size)
            left = open_batches(self.samples, self.marks, batches, layers, parts, self._known)
            if len(left) < len(batches):
                _log.info(
                    "going on: %d of %d batches are finished",
                    len(batches) - len(left),
                    len(batches),
                )
            if left:
                todo.append((left, layers))
        return todo

    @cached_property
    def _known(self) -> Callable[[bytes], bool] | None:
        """Tells which contents have a row to copy: all of the cache, unless layers are new."""
        if self.old is None or self.new_layers:
            return None
        digests = digests_of(self.old.inputs)
        return (set(digests) - {digests[row] for row in self.damaged}).__contains__

    def _write_parts(
        self, folder: PartFolder, todo: _Todo, batch_size: int, device: str, progress: bool
    ) -> None:
        _log.info("%s", self.outlook())
        total = sum(len(batch) for batches, _ in todo for batch in batches)
        with self.clock.spent_on("start"):
            work = [(batches, self._forwards(layers, device, total)) for batches, layers in todo]
        with Progress(total, "images", visible=progress) as shown:
            for batches, forwards in work:
                writing = write_parts(
                    self.samples, forwards, batches, folder,
                    settings={"batch_size": batch_size, "device": device},
                    known=self._known, clock=self.clock,
                    num_workers=parse_count("number of workers", self.options.num_workers),
                    max_pixels=self.options.max_pixels,
                )  # fmt: skip
                with closing(writing):  # a Ctrl-C here: the last part is written under the lock
                    for batch in writing:
                        self.computed += int(batch.filled.sum())
                        shown.advance(len(batch.rows))

    def _forwards(self, layers: Mapping[str, int], device: str, n_images: int) -> list[Forward]:
        return [
            forward_of(
                one.spec,
                own,
                one.load,
                device=device,
                forward_cache=one.named and not self.options.no_forward_cache,
                n_images=n_images,
            )
            for one in self.wanted
            if (own := {name: n for name, n in one.layers.items() if name in layers})
        ]

    def _row_bytes(self, layers: Mapping[str, int]) -> int:
        types = {name: np.dtype(spec.store_dtype) for name, spec in self.specs.items()}
        return sum(n * types[name.rpartition("/")[0]].itemsize for name, n in layers.items())

    def _refuse_full_disk(self, todo: _Todo) -> None:
        """Make sure that the parts to come and the cache fit beside what is there."""
        needed = len(self._ids()) * self._row_bytes(self.layers)
        for batches, layers in todo:
            needed += sum(map(len, batches)) * self._row_bytes(layers)
        free = shutil.disk_usage(self.cache.absolute().parent).free
        if needed > free:
            raise CacheError(
                f"{self.cache} and its parts need {needed / 1e6:,.0f} MB while it is made, but "
                f"only {free / 1e6:,.0f} MB are free there. Make room, give another place, or "
                "store fewer layers (--layers)."
            )

    def _refuse_failures(self, parts: Sequence[Part]) -> None:
        failures = failures_among(self.samples, parts, self.old)
        if failures and self.options.on_bad_input == "fail":
            raise BadInputError(sorted(failures.items()))
        if self.old is not None and not (self.options.prune or self.keep):
            refuse_unreadable(self.old, failures, most=0 if self.distrust else MOST_LOST)
        if not self.keep and failures.keys() >= set(self.samples.ids):
            PartFolder(self.cache).remove()  # there is nothing in them
            raise nothing_usable(failures)

    def _merge(self, parts: Sequence[Part]) -> None:
        merge(
            self.cache,
            ids=self._ids(),
            layers=self.layers,
            specs=self.specs,
            parts=parts,
            old=self.old,
            targets=self.columns,
            failed=[Failure(name, reason) for name, reason in self.samples.failed],
            weights={
                one.spec.backbone: one.weights for one in self.wanted if one.weights != "default"
            },
        )
