"""status.json: how a run stands, for whoever asks from outside; torchrun turns every exit code into 1."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

from xclip_module.errors import STOPPED
from xclip_module.run import storage

NAME = "status.json"


class Status:
    """The main process writes while it runs; any process may write why the run failed, and the cause stays."""

    def __init__(self, folder: Path, rank: int):
        self._path, self._rank = folder / NAME, rank
        self._facts: dict[str, Any] = {}

    def update(self, **facts: Any) -> None:
        """What is going on: phase, step, steps, eta_seconds, checkpoint; keeps what was said before."""
        if not self._facts:
            # A run that resumes stands where it was cut until it says otherwise.
            former = self._read()
            self._facts = {name: former[name] for name in ("step", "steps", "checkpoint") if name in former}
            self._facts |= {"state": "running", "started": _now()}
        self._facts |= facts
        if self._rank == 0:
            self._write(self._facts)

    def end(self, code: int, error: str = "", *, is_echo: bool = False) -> None:
        """How it ended: done (0), stopped (75: the same command goes on) or failed.

        is_echo: this process ended because of another one, which says the cause itself; a cause is never overwritten.
        """
        if not self._facts:
            return  # it never began: what a former run left stays true
        state = {0: "done", STOPPED: "stopped"}.get(code, "failed")
        # torchrun ends the other processes with SIGTERM once one has failed: that is no stop.
        if (is_echo or state == "stopped") and self._read().get("state") == "failed":
            return
        if self._rank == 0 or state == "failed":
            self._write({**self._read(), **self._facts, "state": state, "exit_code": code, "error": error})

    def _read(self) -> dict[str, Any]:
        try:
            facts = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def _write(self, facts: dict[str, Any]) -> None:
        process = {"rank": self._rank, "pid": os.getpid(), "host": os.uname().nodename, "time": _now()}
        storage.write_json(self._path, {**facts, **process})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
