"""The order of the stages, and nothing else."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cache import CacheLock, EmbeddingStore
from pipeline.config import EmbedOptions, TrainOptions, TuneOptions, parse_target_kinds
from pipeline.embedding import EmbeddingJob, Summary
from pipeline.errors import CacheMismatchError, InputError, UnknownNameError
from pipeline.heads import FUSING, refuse_unfoldable
from pipeline.model import TransferModel, as_samples, heldout_table, write_table
from pipeline.results import results_json
from pipeline.run_folder import RunFolder
from pipeline.training import refuse_fusions, refuse_heads, refuse_sameness, train

if TYPE_CHECKING:
    from pipeline.finetuning import Outcome
    from pipeline.samples import SampleSet, Target

__all__ = ["Finished", "run", "tune", "tuned"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Finished:
    """What a run leaves.

    Parameters
    ----------
    model : TransferModel
    path : Path
        Its file.
    embedding : Summary
    seconds : float
    outcome : Outcome, optional
        Of fine-tuning, if it was asked for.
    """

    model: TransferModel
    path: Path
    embedding: Summary
    seconds: float
    outcome: Outcome | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON of ``run``, as it stands in ``metrics.json``."""
        results = results_json(self.model.results, self.seconds)
        if self.outcome is None:
            return results
        both = self.outcome.to_json(self.seconds)
        return results | {name: both[name] for name in ("kept", "rows", "frozen", "tuned")}


def run(
    samples: SampleSet,
    out: str | Path,
    embed_options: EmbedOptions | None = None,
    train_options: TrainOptions | None = None,
    tune_options: TuneOptions | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> Finished:
    """Do the whole job: embed, train, and write everything into one folder.

    The same run again continues where it stopped; a run of another configuration into the
    same folder is refused.

    Parameters
    ----------
    samples : SampleSet
        Labelled inputs.
    out : path
        The folder: ``cache.h5``, ``model.safetensors``, ``config.toml``, ``metrics.json``,
        ``predictions.csv`` (the held-out rows) and ``failed.csv``.
    embed_options, train_options, tune_options
        Options of the stages.
    overwrite : bool
        Take the place of another configuration; a cache whose spec fits is kept.
    progress : bool
        Show how far it is.

    Raises
    ------
    InputError
        Without labels, with one class only, or when no input can be used.
    OptionError
        When the folder holds a run of another configuration.

    Examples
    --------
    >>> from pipeline.samples import SampleSet
    >>> finished = run(SampleSet.from_folder("photos"), "out")  # doctest: +SKIP
    >>> finished.model.results["label"].figures["accuracy"]  # doctest: +SKIP
    0.987
    """
    began = time.perf_counter()
    embedding, training, tuning = given = (
        embed_options or EmbedOptions(),
        train_options or TrainOptions(),
        tune_options or TuneOptions(),
    )
    _refuse_labels(samples, training, tuning)
    folder = RunFolder(Path(out))
    folder.claim(*given, overwrite=overwrite)
    with CacheLock(folder.cache, wait=True):
        job = _prepared(samples, folder.cache, embedding, overwrite=overwrite)
        _refuse_fusion(samples, training, job.layers)
        folder.begin(*given)
        summary = job.execute(progress=progress)
    with EmbeddingStore.open(folder.cache) as store:
        write_table(folder.failed, ["id", "reason"], [[f.id, f.reason] for f in store.failed])
        layers = _layers(embedding, store)
        model = _trained(store, training, layers)
        model.save(folder.model)
        trained_as, outcome = _trained_as(model), None
        if tuning.finetune:
            outcome = tuned(
                model, samples, tuning.blocks, max_epochs=tuning.max_epochs,
                device=embedding.device, beside=folder.model, progress=progress,
            )  # fmt: skip
        anew = samples if outcome is not None and outcome.model is not model else None
        model = model if outcome is None else outcome.model
        header, rows = heldout_table(model, store, anew)
        write_table(folder.predictions, header, rows)
        folder.finish(_embedded_as(store, layers), trained_as)
    finished = Finished(model, folder.model, summary, time.perf_counter() - began, outcome)
    folder.write_metrics(finished.to_json())
    return finished


def tune(
    model: TransferModel, samples: SampleSet, blocks: int = 2, **options: Any
) -> TransferModel:
    """Train the top blocks of a model's network, and give the model that serves better.

    Parameters
    ----------
    model, samples, blocks, **options
        As for `pipeline.finetuning.finetune`.

    Returns
    -------
    TransferModel
        With the tuned network inside, measured on the rows that the model holds out; or the
        model that came in, unchanged, where the tuned network is not better.

    Examples
    --------
    >>> from pipeline import SampleSet, TransferModel, tune
    >>> model = TransferModel.load("out/model.safetensors")  # doctest: +SKIP
    >>> better = tune(model, SampleSet.from_folder("photos"))  # doctest: +SKIP
    >>> better.save("tuned.safetensors")  # doctest: +SKIP
    """
    return tuned(model, samples, blocks, **options).model


def tuned(
    model: TransferModel,
    samples: SampleSet,
    blocks: int = 2,
    *,
    beside: str | Path | None = None,
    **options: Any,
) -> Outcome:
    """Do what `tune` does, and give the figures of both networks with the model.

    Parameters
    ----------
    model, samples, blocks, **options
        As for `tune`.
    beside : path, optional
        Where the model is written; a tuning that was killed before goes on.
    """
    from pipeline.finetuning import compared, finetune  # they load torch

    samples = as_samples(samples)
    backbone = finetune(
        model, samples, blocks, beside=beside, keep_state=beside is not None, **options
    )
    shown = {name: options[name] for name in ("device", "progress") if name in options}
    outcome = compared(model, samples, backbone, **shown)
    if beside is not None:
        outcome.model.save(beside)
        backbone.tuning.finish()
    return outcome


def _prepared(
    samples: SampleSet, cache: Path, options: EmbedOptions, *, overwrite: bool
) -> EmbeddingJob:
    """Prepare stage 1; to overwrite, drop a cache of another spec or with other backbones."""
    job = EmbeddingJob(samples, cache, options)
    asked = options.backbone and {name.strip() for name in options.backbone.split(",")}
    try:
        job.prepare()
        if not overwrite or not asked or asked == set(job.specs):
            return job
    except CacheMismatchError:
        if not overwrite:
            raise
    _log.info("the embeddings in %s are of another spec: made anew", cache)
    cache.unlink()
    return _prepared(samples, cache, options, overwrite=False)


def _layers(options: EmbedOptions, store: EmbeddingStore) -> list[str]:
    """Give the layers to train on: a cache that was kept may hold more than are asked for."""
    if options.layers in (None, "auto", "all"):
        return list(store.layers)
    return [name.strip() for name in str(options.layers).split(",")]


def _refuse_labels(samples: SampleSet, options: TrainOptions, tuning: TuneOptions) -> None:
    """Say what is wrong with the labels, or with what shall learn them, before embedding."""
    if not samples.columns:
        raise InputError(
            "the images have no labels. Put them in one folder per class (photos/owl/1.jpg), or "
            "give a table with the columns 'path' and 'label'. `pipeline embed` works without."
        )
    for kind, name in (("group", options.group), ("split column", options.split_column)):
        if name is not None and name not in samples.columns:
            raise UnknownNameError(kind, name, list(samples.columns))
    targets = _targets(samples, options)
    for target in targets.values():
        refuse_sameness(target)
    weight = None if options.class_weight == "none" else options.class_weight
    refuse_heads(targets, options.head, weight)
    for target in targets.values() if tuning.finetune else ():
        refuse_unfoldable(options.head, target.kind)


def _targets(samples: SampleSet, options: TrainOptions) -> dict[str, Target]:
    besides = {name for name in (options.group, options.split_column) if name}
    kinds = parse_target_kinds(options.target_kind)
    return samples.choose_targets(options.target, kinds, besides=besides)


def _refuse_fusion(samples: SampleSet, options: TrainOptions, layers: Mapping[str, int]) -> None:
    """Refuse a fusion that does not exist, or a layer that will not be there."""
    refuse_fusions(_targets(samples, options), options.fusion, options.head, list(layers))


def _trained(store: EmbeddingStore, options: TrainOptions, layers: list[str]) -> TransferModel:
    try:
        return train(store, options, layers=layers)
    except InputError as error:
        if not store.failed:
            raise
        reasons = Counter(failure.reason for failure in store.failed)
        reason, count = reasons.most_common(1)[0]
        raise InputError(
            f"{error} {len(store.failed)} inputs could not be used; the commonest reason, "
            f"{count} times: {reason}."
        ) from error


def _embedded_as(store: EmbeddingStore, layers: list[str]) -> dict[str, Any]:
    """Say what the options of stage 1 became."""
    names = dict.fromkeys(name.rpartition("/")[0] for name in store.layers)
    spec = store.specs[next(iter(names))]
    height, width = spec.preprocess.image_size
    return {
        "backbone": ",".join(names),
        "layers": ",".join(layers),
        "pooling": spec.pooling,
        "image_size": height if height == width else None,
        "resize": spec.preprocess.resize,
        "precision": spec.precision,
        "store_dtype": spec.store_dtype,
    }


def _trained_as(model: TransferModel) -> dict[str, Any]:
    """Say what the options of stage 2 became."""
    found = list(model.results.values())
    heads, fusions = {one.head for one in found}, {one.fusion for one in found}
    became: dict[str, Any] = {"target": tuple(model.results)}
    # What each target chose for itself stays open: the same run chooses the same again.
    if len(heads) == 1:
        became["head"] = found[0].head
    if len(fusions) == 1:
        became["fusion"] = "auto" if heads <= set(FUSING) else found[0].fusion
    return became
