"""How far a long pass is: a tqdm bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

_LINE_SECONDS = 30.0
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit} [{elapsed}<{remaining}{postfix}]"

log = logging.getLogger(__name__)


class Progress:
    """Counts up to `total` units; fractions of a unit are welcome. Use as a context manager."""

    def __init__(self, total: float, *, name: str, unit: str, is_shown: bool = True, done: float = 0.0):
        """`is_shown` False counts in silence (every process but the main one); `done` = what a former run has done."""
        self.total, self.name, self.unit, self.done = total, name, unit, done
        self._is_shown = is_shown
        self._start = self._last_line = time.monotonic()
        self._bar: Any = None
        if is_shown and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc=name, unit=unit, bar_format=_BAR, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes the bar, or writes a last line when the pass was long enough for one."""
        if self._bar is not None:
            self._bar.close()
        elif error is None and self._last_line != self._start:
            self._line()

    def advance(self, amount: float, note: str = "") -> None:
        """Adds `amount` units; `note` stands behind the bar."""
        self.done += amount
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif self._is_shown and time.monotonic() - self._last_line > _LINE_SECONDS:
            self._line(note)

    def _line(self, note: str = "") -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._start
        left = elapsed * (self.total - self.done) / self.done if self.done else float("nan")
        text = f"{self.name}: {self.done:.1f} of {self.total:g} {self.unit}, {elapsed:.0f} s, about {left:.0f} s left"
        log.info("%s", f"{text}, {note}" if note else text)
