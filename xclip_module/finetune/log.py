"""Where the numbers of a training go: metrics.jsonl, status.json, the screen, TensorBoard where it is installed."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xclip_module.run.folder import Run
from xclip_module.run.progress import Progress
from xclip_module.run.timing import clock, peak_memory

log = logging.getLogger(__name__)


class TrainingLog:
    """One line every few steps, or one bar where people watch. Use as a context manager."""

    def __init__(self, run: Run, *, step: int, total: int):
        """Goes on from `step` of `total`."""
        self._run, self._total, self._done = run, total, step
        is_shown = run.is_terminal and run.world.is_main
        self._bar = Progress(total, name="training", unit="steps", is_shown=is_shown, done=step)
        self._board = _open_board(run.folder / "tensorboard", step) if run.world.is_main else None

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *ended: Any) -> None:
        self._bar.__exit__(*ended)
        if self._board is not None:
            self._board.close()

    def row(self, row: Mapping[str, Any]) -> None:
        """The means since the last row, with where the time goes."""
        row = {**row, "memory_gb": round(peak_memory(self._run.world.device) / 1e9, 3)}
        self._run.record(**row)
        self._run.status.update(phase="training", steps=self._total, **{k: row[k] for k in ("step", "eta_seconds")})
        self._draw(row, "train")
        self._bar.advance(row["step"] - self._done, note=_short(row))
        self._done = row["step"]
        if not self._run.is_terminal:
            log.info("%s", _line(row, self._total))

    def validation(self, step: int, row: Mapping[str, Any], split: str) -> None:
        """The numbers of a split, mostly val, at a step."""
        self._run.record(step=step, split=split, **row)
        self._draw({**row, "step": step}, split)
        cells = [f"{name} {'–' if value is None else format(value, '.3f')}" for name, value in row.items()]
        log.info("%s at step %d: %s", split, step, "  ".join(cells))

    def _draw(self, row: Mapping[str, Any], group: str) -> None:
        for name, value in row.items():
            if self._board is not None and name != "step" and value is not None:
                self._board.add_scalar(f"{group}/{name}", value, row["step"])


def _open_board(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # seconds to import, and absent on most machines

    return SummaryWriter(str(folder), purge_step=step + 1)


def _line(row: Mapping[str, Any], total: int) -> str:
    cells = {
        "step": f"{row['step']}/{total}",
        "loss": f"{_number(row['loss'], '.4f')} (floor {row['floor']:.3f})",
        "lr": f"{row['lr']:.2e}",
        "grad norm": _number(row["grad_norm"], ".3g"),
        "scale": f"{row['scale']:g}",
        "skipped": str(row["skipped"]),
        "clips/s": f"{row['clips_per_second']:.1f}",
        "data wait": f"{row['data_wait']:.0%}",
        "memory": f"{row['memory_gb']:.2f} GB",
        "ETA": clock(row["eta_seconds"]),
    }
    return "  ".join(f"{name} {value}" for name, value in cells.items())


def _short(row: Mapping[str, Any]) -> str:
    wait, rate = f"{row['data_wait']:.0%}", f"{row['clips_per_second']:.1f}"
    return f", loss {_number(row['loss'], '.3f')}, lr {row['lr']:.1e}, {rate} clips/s, wait {wait}"


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)
