"""Running statistics, against those of all samples at once."""

import numpy as np
import pytest

from slm_lab.env.moments import Moments


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_moments_are_those_of_all_samples_at_once(shape):
    rng = np.random.default_rng(1)
    moments = Moments(shape)
    samples = []
    for size in (1, 5, 1, 300, 2):
        batch = rng.normal(1e4, 3, (size, *shape))
        samples.append(batch)
        moments.update(batch)
        everything = np.concatenate(samples)
        np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-14)
        np.testing.assert_allclose(moments.var, everything.var(0), rtol=1e-9)
    assert moments.count == 309
