"""How torch's threads wait for one another."""

import os

SPINS = 10_000
"""Checks of a waiting thread before it sleeps, about 30 microseconds; libgomp's own number is 300,000."""


def spin_briefly() -> None:
    """Let the threads of OpenMP sleep soon when they wait for one another, unless the environment says otherwise.

    By default they spin for a millisecond. Where another program uses a core, each of the many small operations of a
    step then waits for a spinning thread to be taken off its core: a small model trains 20 to 40 times as slowly. Call
    it before torch is imported: OpenMP reads the variable when it is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
