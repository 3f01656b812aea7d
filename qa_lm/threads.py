"""How torch's threads wait for one another."""

import os


def sleep_while_waiting() -> None:
    """Let the threads of OpenMP sleep while they wait for one another, unless the environment says otherwise.

    By default they spin. Where another program uses a core, each of the many small operations of a step then waits for
    a spinning thread to be taken off its core: a small model trains 20 to 40 times as slowly. On an idle machine both
    are as fast. Call it before torch is imported: OpenMP reads the variable when it is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
