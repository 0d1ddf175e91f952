"""Shares of a layer outside of a training step. tests/distribution/test_replicas.py tests the steps."""

import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.layers import ColumnDense
from alexnet_tf.layers.unit_parallel_dense import UnitParallelDense


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_each_unit_belongs_to_one_worker(workers):
    whole = ColumnDense(10, groups=2, name="fc6")
    expected = whole(tf.ones((4, 3)))
    shares = [UnitParallelDense(whole, worker, workers) for worker in range(workers)]
    units = [unit for share in shares for unit in range(5)[share.own_units]]
    assert units == list(range(5))
    for share in shares:
        np.testing.assert_array_equal(share(tf.ones((4, 3))), expected)  # outside of a strategy, the whole layer
        count = share.own_units.stop - share.own_units.start
        assert [tuple(v.shape) for v in share.weights] == [(3, count), (count,)] * 2
        assert [v.path for v in share.weights] == [v.path for v in whole.weights]
