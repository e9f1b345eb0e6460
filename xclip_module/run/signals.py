"""Signals that ask a run to end arrive as KeyboardInterrupt, deferred while something must not be torn."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

# SIGHUP: the terminal or the tmux server has gone.
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """What the run does about SIGINT, SIGTERM and SIGHUP once `catch` was called."""

    def __init__(self) -> None:
        self._depth = 0
        self._pending = ""

    def catch(self) -> None:
        """From now on each raises KeyboardInterrupt with its name; one that the caller ignores stays ignored."""
        for number in _NUMBERS:
            # nohup, or a job in the background.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._arrive)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A signal that arrives in the body is raised after it: a second one must not cut the answer to the first."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            # Raised by the outermost body only: the inner one is a part of what must not be torn.
            if not self._depth and (name := self._pending):
                self._pending = ""
                raise KeyboardInterrupt(name)

    def _arrive(self, number: int, _: Any) -> None:
        name = signal.Signals(number).name
        if self._depth:
            self._pending = name
        else:
            raise KeyboardInterrupt(name)
