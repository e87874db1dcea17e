"""``pipeline embed``: stage 1 from the command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.cli.talk import say, show_json, show_line
from pipeline.config import EmbedOptions
from pipeline.errors import OptionError
from pipeline.progress import duration
from pipeline.samples import SampleSet

__all__ = ["embed", "understood"]


def embed(
    source: Path,
    cache: Path,
    /,
    *,
    options: Annotated[EmbedOptions, Parameter(name="*")] = EmbedOptions(),
    follow_outside: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Run a frozen backbone once and cache the embeddings of many layers.

    The same command again embeds what is new and nothing else.

    Parameters
    ----------
    source
        A folder with one subfolder per class, a flat folder, a .csv or .parquet table with a
        column path, a .txt list of paths, or one file.
    cache
        The HDF5 file to make or to extend.
    follow_outside
        Also read what paths and links of the source lead to outside its folder.
    dry_run
        Say what would be done, and stop.
    json
        Print one JSON object on standard output.
    """
    if dry_run and json:
        raise OptionError("--dry-run makes nothing that --json could tell of. Leave one out.")
    samples = understood(source, follow_outside=follow_outside)

    from pipeline.cache import CacheLock
    from pipeline.embedding import EmbeddingJob

    job = EmbeddingJob(samples, cache, options)
    if dry_run:
        job.prepare()
        say(job.outlook())
        return 0
    with CacheLock(cache):
        job.prepare()
        summary = job.execute(progress=True)
    if json:
        show_json(summary_json(summary))
    else:
        say(in_words(summary, f"`pipeline info {cache}` names them"))
        show_line(str(cache))
    return 0


def understood(source: Path | tuple[Path, ...], *, follow_outside: bool = False) -> SampleSet:
    """Read a source and say at once what was understood."""
    samples = SampleSet.from_source(source, follow_outside=follow_outside)
    say(samples.summary())
    return samples


def summary_json(summary: Any) -> dict[str, Any]:
    """Give the JSON of ``embed``."""
    return dataclasses.asdict(summary) | {"layers": list(summary.layers)}


def in_words(summary: Any, where_failures: str) -> str:
    """Say what was done, where the time went, what limits it, and where failures are named."""
    if summary.images_per_second is None:
        done = f"nothing to do: {summary.reused} reused"
    else:
        new, spent = summary.rows - summary.reused, summary.seconds
        done = (
            f"{new} embedded, {summary.reused} reused in {duration(spent['total'])} "
            f"({summary.images_per_second:.0f} images/s): start {spent['start']:.1f} s, "
            f"forward {spent['forward']:.1f} s, wait for decoding {spent['wait']:.1f} s, "
            f"write {spent['write']:.1f} s; decoding took its threads {spent['decode']:.1f} s; "
            f"limited by {summary.limit}"
        )
    return done + (f"; {summary.failed} failed: {where_failures}" if summary.failed else "")
