"""Stage 1: inputs become a finished cache of the embeddings of many layers.

::

    stage.py          embed()
    job.py            one run: look at what there is, then do it
    wanted.py         what the cache shall hold: backbones, layers, specs
    plan.py           which rows are new or changed
    ledger.py         inputs without a row
    labels.py         the columns of the source on their way into the cache
    summary.py        what was done
    content_cache.py  embeddings looked up by what the inputs hold
"""

from pipeline.embedding.content_cache import ContentCache, Fetched
from pipeline.embedding.job import EmbeddingJob
from pipeline.embedding.plan import mark_of
from pipeline.embedding.stage import embed
from pipeline.embedding.summary import Summary

__all__ = ["ContentCache", "EmbeddingJob", "Fetched", "Summary", "embed", "mark_of"]
