"""The cache: embeddings of many layers in one HDF5 file that is absent or whole.

::

    parts.py     finished batches beside the cache, written durably
    merge.py     parts + old cache -> new cache, by one rename
    store.py     EmbeddingStore: an open cache, read as one matrix
    foreign.py   vectors that were computed elsewhere
    lock.py      one writer at a time
    seal.py      damage is found before HDF5 sees a byte
    layout.py    where everything stands in the file
    datasets.py  the pieces of such a file, in HDF5's own words
    sheet.py     a file in memory, for HDF5 to write to
    writing.py   one finished cache, streamed
    blocks.py    a checksum for every 4,096 rows
    contents.py  what a cache says about its rows
    disk.py      durable writing, with its failures in our words

Beside a model in the making::

    boundary.py          what enters the first trained block, for every view of every row
    boundary_contents.py what is known of it without its values
    boundary_layout.py   where it stands in a file of its own

h5py is imported by the layouts and by datasets.py, when a file is first read or written.
"""

from pipeline.cache.blocks import BLOCK_ROWS
from pipeline.cache.boundary import BoundaryCache, BoundaryWriter
from pipeline.cache.boundary_contents import BoundaryContents
from pipeline.cache.contents import (
    FORMAT_VERSION,
    INPUT,
    Column,
    Contents,
    Failure,
    digests_of,
)
from pipeline.cache.lock import CacheLock
from pipeline.cache.merge import merge
from pipeline.cache.parts import FoundParts, Part, PartFolder
from pipeline.cache.seal import check_seal, is_cache
from pipeline.cache.store import EmbeddingStore
from pipeline.cache.writing import write_cache

__all__ = [
    "BLOCK_ROWS",
    "FORMAT_VERSION",
    "INPUT",
    "BoundaryCache",
    "BoundaryContents",
    "BoundaryWriter",
    "CacheLock",
    "Column",
    "Contents",
    "EmbeddingStore",
    "Failure",
    "FoundParts",
    "Part",
    "PartFolder",
    "check_seal",
    "digests_of",
    "is_cache",
    "merge",
    "write_cache",
]
