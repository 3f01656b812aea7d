"""How the threads of torch wait for one another."""

import os

SPINS = 10_000
"""Number of times a waiting thread polls before it sleeps, about 30 microseconds; libgomp's default is 300,000."""


def spin_briefly() -> None:
    """Let waiting OpenMP threads sleep early, unless the environment sets `OMP_WAIT_POLICY`.

    By default they spin for a millisecond. If another program uses a core, each of the many small operations of a step
    then waits until a spinning thread is moved off its core: a small model trains 20 to 40 times slower. Call this
    before torch is imported, because OpenMP reads the variable when it is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
