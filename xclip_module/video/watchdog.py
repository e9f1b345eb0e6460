"""Ends the process, with the file's name, when a decoder hangs.

A hung decoder never returns to the interpreter: Ctrl-C, SIGTERM handlers and alarms wait for ever, another thread does
not (the decoders release the GIL). Several readers are watched at once, each by its own call.
"""

import os
import threading
import time
from pathlib import Path

from xclip_module.errors import HangError
from xclip_module.video.container import reencode

_POLL_SECONDS = 0.25  # a call may last so much longer than allowed


class _Watch:
    """One blocking call; cheap enough to stand around every packet."""

    __slots__ = ("age", "path", "seconds")

    def __init__(self, path: Path, seconds: float):
        self.path, self.seconds, self.age = path, seconds, 0.0

    def __enter__(self) -> "_Watch":
        self.age = 0.0
        _state.calls[id(self)] = self
        if _state.pid != os.getpid():
            _state.start(self)
        return self

    def __exit__(self, *_: object) -> None:
        _state.calls.pop(id(self), None)


class _State:
    """The calls being watched and the thread that watches them, for one process: a fork starts afresh."""

    def __init__(self) -> None:
        self.calls: dict[int, _Watch] = {}
        self.pid = 0
        self.thread: threading.Thread | None = None

    def start(self, first: _Watch) -> None:
        # No lock: one held by another thread at the moment of a fork would stay shut in the child for ever.
        self.calls = {id(first): first}
        self.pid = os.getpid()
        self.thread = threading.Thread(target=_watch, name="decode watchdog", daemon=True)
        self.thread.start()


_state = _State()


def watching(path: Path, seconds: float) -> _Watch:
    """A context manager around one blocking decoder call on `path`; it may be entered again and again.

    When a call lasts longer than `seconds`, one line naming the file goes to stderr and the process ends with
    `HangError.exit_code`. Time in which the whole process was stopped (Ctrl-Z, a suspended machine) does not count.
    """
    return _Watch(path, seconds)


def _watch() -> None:
    while _state.thread is threading.current_thread():
        before = time.monotonic()
        time.sleep(_POLL_SECONDS)
        # A process that was stopped wakes late, which is not the decoder's fault.
        step = min(time.monotonic() - before, 2 * _POLL_SECONDS)
        for call in _state.calls.copy().values():
            call.age += step
            if call.age > call.seconds:
                _end(call)


def _end(call: _Watch) -> None:
    error = HangError("decoder hung", call.path, f"no frame for {call.seconds:g} s", reencode(call.path))
    # sys.exit would end only this thread: the hung one never comes back to the interpreter.
    os.write(2, f"error: {error}\n".encode(errors="replace"))
    os._exit(HangError.exit_code)
