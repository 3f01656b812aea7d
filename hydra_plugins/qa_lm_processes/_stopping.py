"""Ctrl-C and SIGTERM while jobs run: noted here, acted on by the pool."""

import signal
import time
from types import FrameType, TracebackType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE_WISH_SECONDS = 0.5
"""Signals closer than this are one: the shell and the system both send SIGHUP when a terminal is closed."""


class Stopping:
    """While entered, a signal that would end this process is only counted.

    A signal that this process ignores (SIGHUP under nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        """The first signal that came."""
        self.count = 0
        self._last = float("-inf")
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Stopping":
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number)
        if time.monotonic() - self._last > ONE_WISH_SECONDS:
            self.count += 1
        self._last = time.monotonic()

    @property
    def passed_on(self) -> signal.Signals:
        """What jobs are sent: SIGINT, or SIGTERM for all that ends without a person at the keyboard."""
        return signal.SIGINT if self.first is signal.SIGINT else signal.SIGTERM

    @property
    def exit_code(self) -> int:
        """Of this process: 130 or 143."""
        return 128 + self.passed_on
