"""A sample of what benchmarks/fuzzing.py does: mutated files, refused or read right."""

import pytest
from fuzzing import CACHES, MODELS, tally, write_cache, write_models

EACH = 60


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache") / "cache.h5")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("kind", CACHES, ids=lambda kind: kind.name)
def test_a_mutated_cache_is_refused_or_read_right(kind, cache, tmp_path):
    counts, findings = tally(kind, [cache], EACH, 0, tmp_path)
    assert not findings
    assert counts["refused"] > EACH / 3


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.name)
def test_a_mutated_model_is_refused_or_read_right(kind, models, tmp_path):
    counts, findings = tally(kind, models, EACH, 0, tmp_path)
    assert not findings
    assert counts["refused"] > 0
