"""Seconds until run_zeroshot.py answers: libraries read when they are used, beside all of them read first.

Run as a module of its own it is the child process: `python -m xclip_module.benchmark.startup WAY FLAG …`.
"""

import importlib
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).parents[2] / "run_zeroshot.py"
_FIRST, _WHEN_USED = "first", "when-used"
_NAMES = {_FIRST: "every library first", _WHEN_USED: "ours: when it is used"}
_LIBRARIES = ("torch", "torchvision.transforms.v2", "transformers", "pandas", "sklearn.metrics", "matplotlib.figure")
_ENCODING = "xclip_module.features.encoding"
# What the child says, in this order.
_DECODED, _ENCODED = "decoded", "encoded"
_COLUMNS = ("--help", "first line", "first frames", "first video")
_REPEATS = 3


def run() -> str:
    """The median of each way, in turn, so that both meet the same load."""
    rows: dict[str, list[tuple[float, ...]]] = {_FIRST: [], _WHEN_USED: []}
    for _ in range(_REPEATS):
        for way, measurements in rows.items():
            measurements.append((_help_seconds(way), *_run_seconds(way)))
    width = max(map(len, _NAMES.values()))
    lines = [
        f"start-up of {_SCRIPT.name}: seconds to --help, and of the demo to the first line of the log, until the "
        f"first frames are decoded, the first video is encoded; median of {_REPEATS}",
        f"{'':{width}}  {'  '.join(f'{column:>12}' for column in _COLUMNS)}",
    ]
    for way, measurements in rows.items():
        medians = map(statistics.median, zip(*measurements, strict=True))
        lines.append(f"{_NAMES[way]:{width}}  {'  '.join(f'{seconds:12.2f}' for seconds in medians)}")
    return "\n".join(lines)


def _help_seconds(way: str) -> float:
    start = time.time()
    subprocess.run([*_command(way), "--help"], cwd=_SCRIPT.parent, stdout=subprocess.DEVNULL, check=True)
    return time.time() - start


def _run_seconds(way: str) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        command = [*_command(way), f"--run.root={folder}", "--run.device=cpu"]
        pipe, root = subprocess.PIPE, _SCRIPT.parent
        with subprocess.Popen(command, cwd=root, text=True, stdout=pipe, stderr=pipe) as child:
            assert child.stdout is not None, "a pipe was asked for"
            assert child.stderr is not None, "a pipe was asked for"
            child.stderr.readline()
            line = time.time()
            times: dict[str, float] = {}
            # Every batch is told as decoded; the first counts.
            while _ENCODED not in times:
                event, moment = child.stdout.readline().split()
                times.setdefault(event, float(moment))
            # The rest of the run is not measured.
            child.kill()
    return line - start, times[_DECODED] - start, times[_ENCODED] - start


def _command(way: str) -> list[str]:
    return [sys.executable, "-m", "xclip_module.benchmark.startup", way]


class _ImportWatch(PathFinder):
    """Has the first pictures and the first encoded video told on stdout, without reading their module for it."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Of the one watched module."""
        spec = PathFinder.find_spec(name, path, target) if name == _ENCODING else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: Any) -> None:
                execute(module)
                module.to_pixels = _told(module.to_pixels, before=_DECODED)
                module.encode_frames = _told(module.encode_frames, after=_ENCODED)

            spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def _told(function: Callable, *, before: str = "", after: str = "") -> Callable:
    def call(*arguments: Any, **options: Any) -> Any:
        _say(before)
        result = function(*arguments, **options)
        _say(after)
        return result

    return call


def _say(event: str) -> None:
    if event:
        sys.stdout.write(f"{event} {time.time()}\n")
        sys.stdout.flush()


def _main(way: str, *arguments: str) -> None:
    for library in _LIBRARIES if way == _FIRST else ():
        importlib.import_module(library)
    sys.meta_path.insert(0, _ImportWatch)
    # As the program itself is started.
    sys.argv = [str(_SCRIPT), *arguments]
    runpy.run_path(str(_SCRIPT), run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])
