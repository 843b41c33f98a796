"""Whole lives in simulated time, one seed each, for `make mutate`: a mutant that no suite notices may still pay twice.

No file of the test run: `test_simulation.py` lives hundreds of these lives, in batches.
"""

from __future__ import annotations

import pytest
from simulation.lives import explain, simulate


@pytest.mark.parametrize("seed", range(1, 13))
def test_one_life(seed: int) -> None:
    """Whatever goes wrong, nobody is paid twice and nothing is lost."""
    report = simulate(seed)
    assert not report.violations, explain(report)
