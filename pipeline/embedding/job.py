"""EmbeddingJob: one run of stage 1, in two steps: look at what there is, then do it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones import resolve_device
from pipeline.cache import EmbeddingStore, Failure, Part, PartFolder, digests_of, merge
from pipeline.config import EmbedOptions, parse_batch_size
from pipeline.embedding.labels import same_columns, stored_columns
from pipeline.embedding.plan import make_plan, open_batches, refuse_losses
from pipeline.embedding.wanted import wanted_backbones
from pipeline.errors import BadInputError, InputError
from pipeline.extraction import Clock, auto_batch_size, forward_of, plan_batches, write_parts
from pipeline.progress import Progress

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.samples import SampleSet

__all__ = ["EmbeddingJob", "Summary"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What an embedding did.

    Parameters
    ----------
    rows, failed, reused : int
        Rows in the cache, ledger entries, rows that were not computed again.
    layers : dict of str to int
        Width of every layer.
    images_per_second : float or None
        Start and writing counted; None when nothing was embedded.
    limit : str
        What took most of the time.
    seconds : dict of str to float
        Where the time went.
    """

    rows: int
    failed: int
    reused: int
    layers: dict[str, int]
    images_per_second: float | None
    limit: str
    seconds: dict[str, float]


class EmbeddingJob:
    """One run of stage 1.

    Whoever runs it holds the lock of the cache.

    Parameters
    ----------
    samples, cache, options, backbones, keep
        As for `embed`.
    """

    def __init__(
        self,
        samples: SampleSet,
        cache: Path,
        options: EmbedOptions,
        backbones: str | Backbone | Sequence[str | Backbone] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self.samples, self.cache, self.options, self.keep = samples, cache, options, keep
        self.backbones = backbones if backbones is not None else options.backbone
        self.clock = Clock()
        self.computed = 0

    def prepare(self) -> None:
        """Settle backbones and layers, and find out which rows need work."""
        with self._old() as old:
            self.wanted = wanted_backbones(self.backbones, self.options, old)
            self.plan = make_plan(self.samples, old)
            if old is not None and not (self.options.prune or self.keep):
                lost = refuse_losses(self.samples, old, self.plan)
                if lost:
                    _log.info("%d rows are not in the source any more: dropped", lost)
        self.layers = {name: n for one in self.wanted for name, n in one.layers.items()}
        held = {name for one in self.wanted for name in one.held}
        self.new_layers = {name: n for name, n in self.layers.items() if name not in held}

    def outlook(self) -> str:
        """Say what is to be done, in a line."""
        rows = len(self.plan.fresh) + (len(self.plan.kept) if self.new_layers else 0)
        names = ", ".join(one.spec.backbone for one in self.wanted)
        return (
            f"{rows} images to embed, {len(self.samples) - rows} held already; {names}, "
            f"{len(self.layers)} layers, {self._megabytes(rows):.1f} MB"
        )

    def _megabytes(self, rows: int) -> float:
        value = 2 if self.wanted[0].spec.store_dtype == "float16" else 4
        return rows * sum(self.layers.values()) * value / 1e6

    def execute(self, *, progress: bool = False) -> Summary:
        """Embed what is missing, and make the finished cache.

        Raises
        ------
        BadInputError
            Under ``on_bad_input="fail"``; what is finished is kept for the next run.
        InputError
            When not one input can be used.
        """
        folder = PartFolder(self.cache)
        specs = {one.spec.backbone: one.spec for one in self.wanted}
        with self._old() as old:
            parts = folder.read(specs.values()).sound
            settings = self._settings(parts)
            todo = self._todo(parts, settings["batch_size"])
            self.clock.start = time.perf_counter() - self.clock.began
            if todo:
                self._write_parts(folder, todo, settings, self._known(old), progress)
                parts = folder.read(specs.values()).sound
            self._refuse_failures(parts)
            if parts or old is None or not self._is_current(old):
                with self.clock.spent_on("write"):
                    self._merge(old, parts)
        with EmbeddingStore.open(self.cache) as store:
            return self._summary(store)

    @contextmanager
    def _old(self) -> Iterator[EmbeddingStore | None]:
        if not self.cache.exists():
            yield None
            return
        with EmbeddingStore.open(self.cache) as store:
            yield store

    def _settings(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Give what is resolved once: a resume takes it from the parts that lie there."""
        if parts:
            return dict(parts[0].settings)
        device = resolve_device(self.options.device)
        size = parse_batch_size(self.options.batch_size) or auto_batch_size(device)
        return {"batch_size": size, "device": device}

    def _todo(
        self, parts: Sequence[Part], batch_size: int
    ) -> list[tuple[list[Sequence[int]], dict[str, int]]]:
        """Pair the batches that are left with the layers that they need."""
        phases = [(self.plan.fresh, self.layers), (self.plan.kept, self.new_layers)]
        todo = []
        for rows, layers in phases:
            batches = plan_batches(rows, batch_size) if layers else []
            left = open_batches(self.samples, batches, set(layers), parts)
            if left:
                todo.append((left, layers))
        return todo

    def _known(self, old: EmbeddingStore | None) -> Callable[[bytes], bool] | None:
        """Tell which contents have a row to copy: all of the cache, unless layers are new."""
        if old is None or self.new_layers:
            return None
        return set(digests_of(old.inputs)).__contains__

    def _write_parts(
        self,
        folder: PartFolder,
        todo: Sequence[tuple[Sequence[Sequence[int]], dict[str, int]]],
        settings: Mapping[str, Any],
        known: Callable[[bytes], bool] | None,
        progress: bool,
    ) -> None:
        total = sum(len(batch) for batches, _ in todo for batch in batches)
        self._say_what_is_coming(total, str(settings["device"]))
        with self.clock.spent_on("start"):
            backbones = {one.spec.backbone: one.load() for one in self.wanted}
        with Progress(total, "images", visible=progress) as shown:
            for batches, layers in todo:
                with self.clock.spent_on("start"):
                    forwards = [
                        forward_of(
                            backbones[one.spec.backbone], taps, one.spec, device=settings["device"]
                        )
                        for one in self.wanted
                        if (taps := one.taps_among(layers))
                    ]
                for batch in write_parts(
                    self.samples, forwards, batches, folder,
                    settings=settings, known=known, clock=self.clock,
                ):  # fmt: skip
                    self.computed += int(batch.filled.sum())
                    shown.advance(len(batch.rows))

    def _say_what_is_coming(self, total: int, device: str) -> None:
        _log.info(
            "embedding %d images with %s: %d layers, %s on %s, %.1f MB",
            total,
            ", ".join(one.spec.backbone for one in self.wanted),
            len(self.layers),
            self.wanted[0].spec.precision,
            device,
            self._megabytes(total),
        )

    def _refuse_failures(self, parts: Sequence[Part]) -> None:
        failures = dict(self.samples.failed)
        for part in parts:
            failures |= {part.ids[row]: reason for row, reason in part.failed.items()}
        usable = len(self.samples) - sum(name in failures for name in self.samples.ids)
        if failures and self.options.on_bad_input == "fail":
            raise BadInputError(sorted(failures.items()))
        if not usable:
            PartFolder(self.cache).remove()
            reason, count = Counter(failures.values()).most_common(1)[0]
            raise InputError(
                f"none of the {len(failures)} inputs can be used; the commonest reason, "
                f"{count} times: {reason}. Give files that open in a picture viewer."
            )

    def _is_current(self, old: EmbeddingStore) -> bool:
        """Whether the old cache already says everything that a new one would."""
        failed = {failure.id for failure in old.failed}
        rows = [place for place, name in enumerate(self._ids(old)) if name not in failed]
        columns = {} if self.keep else stored_columns(self.samples)
        return (
            tuple(self._ids(old)[place] for place in rows) == old.ids
            and same_columns({n: column.take(rows) for n, column in columns.items()}, old.targets)
            and failed - set(self.samples.ids) == {name for name, _ in self.samples.failed}
        )

    def _ids(self, old: EmbeddingStore | None) -> tuple[str, ...]:
        if old is None or not self.keep:
            return self.samples.ids
        own = set(self.samples.ids)
        return tuple(name for name in old.ids if name not in own) + self.samples.ids

    def _merge(self, old: EmbeddingStore | None, parts: Sequence[Part]) -> None:
        merge(
            self.cache,
            ids=self._ids(old),
            layers=self.layers,
            specs={one.spec.backbone: one.spec for one in self.wanted},
            parts=parts,
            old=old,
            targets={} if self.keep else stored_columns(self.samples),
            failed=[Failure(name, reason) for name, reason in self.samples.failed],
            weights={
                one.spec.backbone: one.weights for one in self.wanted if one.weights != "default"
            },
        )

    def _summary(self, store: EmbeddingStore) -> Summary:
        seconds = self.clock.seconds()
        return Summary(
            rows=len(store),
            failed=len(store.failed),
            reused=len(store) - self.computed,
            layers=store.layers,
            images_per_second=self.computed / seconds["total"] if self.computed else None,
            limit=self.clock.limit(),
            seconds=seconds,
        )
