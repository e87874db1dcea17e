"""Factors of columns and maps of layers, against their words."""

import numpy as np
import pytest

from pipeline.fusion import orthonormal_maps
from pipeline.fusion.scaling import column_factors

SPANS = [slice(0, 3), slice(3, 8), np.array([8, 9])]
VARIANCE = np.array([4.0, 1.0, 0.25, 100.0, 1e-6, 3.0, 2.0, 1.0, 0.01, 0.02])


@pytest.mark.parametrize("scaling", ["trace", "standard", "shrunk"])
def test_layers_get_equal_variance_and_columns_one_on_average(scaling):
    scaled = VARIANCE * column_factors(VARIANCE, SPANS, scaling) ** 2
    np.testing.assert_allclose([scaled[span].sum() for span in SPANS], 10 / 3)
    assert scaled.mean() == pytest.approx(1)


def test_columns_of_a_layer_are_treated_as_their_scaling_says():
    own = VARIANCE[3:8]
    trace, standard, shrunk = (
        column_factors(VARIANCE, SPANS, scaling)[3:8] for scaling in ("trace", "standard", "shrunk")
    )
    np.testing.assert_allclose(trace, trace[0])
    np.testing.assert_allclose(standard * np.sqrt(own), standard[0] * np.sqrt(own[0]))
    expected = shrunk * np.sqrt((own + own.mean()) / 2)
    np.testing.assert_allclose(expected, expected[0])


def test_a_channel_that_is_all_but_dead_does_not_explode_when_shrunk():
    standard, shrunk = (column_factors(VARIANCE, SPANS, s)[4] for s in ("standard", "shrunk"))
    assert standard > 500
    assert shrunk < 1


@pytest.mark.parametrize("scaling", ["trace", "standard", "shrunk"])
def test_what_is_constant_is_multiplied_by_nothing_and_counts_for_nothing(scaling):
    variance = np.insert(VARIANCE, [0, 3], 0.0)
    spans = [slice(0, 4), slice(4, 10), slice(10, 12)]
    factors = column_factors(variance, spans, scaling)
    assert factors[[0, 4]].tolist() == [0, 0]
    np.testing.assert_allclose(np.delete(factors, [0, 4]), column_factors(VARIANCE, SPANS, scaling))
    assert column_factors(np.zeros(3), [slice(0, 3)], scaling).tolist() == [0, 0, 0]


def test_narrow_layers_are_mapped_with_all_lengths_and_angles_each_in_its_own_way():
    maps = orthonormal_maps({"a": 3, "b": 3, "c": 8}, np.random.RandomState(0))
    assert list(maps) == ["a", "b"]
    for own in maps.values():
        assert (own.shape, own.dtype) == ((3, 8), np.float32)
        np.testing.assert_allclose(own @ own.T, np.eye(3), atol=1e-6)
    assert np.abs(maps["a"] - maps["b"]).max() > 0.1
    again = orthonormal_maps({"a": 3, "b": 3, "c": 8}, np.random.RandomState(0))
    np.testing.assert_array_equal(again["b"], maps["b"])
    assert orthonormal_maps({"a": 4, "b": 4}, np.random.RandomState(0)) == {}
