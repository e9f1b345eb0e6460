"""Seconds until run_zeroshot.py answers: libraries read when they are used, beside all of them read first.

Run as a module of its own it is the child process: `python -m xclip_module.benchmark.startup WAY FLAG …`.
"""

import contextlib
import importlib
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).parents[2] / "run_zeroshot.py"
_FIRST, _WHEN_USED = "every library first", "ours: when it is used"
_LIBRARIES = ("torch", "torchvision.transforms.v2", "transformers", "pandas", "sklearn.metrics", "matplotlib.figure")
_ENCODING = "xclip_module.features.encoding"
_COLUMNS = dict.fromkeys(("--help", "first line", "first frames", "first video"), 12)
_REPEATS = 3


def run() -> list[str]:
    """The median of each way, in turn, so that both meet the same load."""
    # Not above: it reads torch, which the child must not have read before its program.
    from xclip_module.benchmark.meter import aligned

    rows: dict[str, list[tuple[float, ...]]] = {_FIRST: [], _WHEN_USED: []}
    for _ in range(_REPEATS):
        for way, measurements in rows.items():
            measurements.append((_help_seconds(way), *_run_seconds(way)))
    medians = [
        (way, *(f"{statistics.median(seconds):.2f}" for seconds in zip(*measurements, strict=True)))
        for way, measurements in rows.items()
    ]
    return [
        f"start-up of {_SCRIPT.name}: seconds to --help, and of the demo to the first line of the log, until the "
        f"first frames are decoded, the first video is encoded; median of {_REPEATS}",
        *aligned({"": max(map(len, rows)), **_COLUMNS}, medians),
    ]


def _help_seconds(way: str) -> float:
    start = time.time()
    subprocess.run([*_command(way), "--help"], cwd=_SCRIPT.parent, stdout=subprocess.DEVNULL, check=True)
    return time.time() - start


def _run_seconds(way: str) -> tuple[float, float, float]:
    """Until the first line of the log, the first call with pictures, and the end of the first video."""
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
            while "encode_frames ends" not in times:
                event, _, moment = child.stdout.readline().rpartition(" ")
                times.setdefault(event, float(moment))
            # The rest of the run is not measured.
            child.kill()
    return line - start, times["to_pixels starts"] - start, times["encode_frames ends"] - start


def _command(way: str) -> list[str]:
    return [sys.executable, "-m", "xclip_module.benchmark.startup", way]


class _Finder(PathFinder):
    """Has calls of the module that encodes told on stdout, without reading it before the program does."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Of that one module."""
        spec = PathFinder.find_spec(name, path, target) if name == _ENCODING else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: Any) -> None:
        super().exec_module(module)
        module.to_pixels = _told("to_pixels")(module.to_pixels)
        module.encode_frames = _told("encode_frames")(module.encode_frames)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    sys.stdout.write(f"{name} starts {time.time()}\n")
    sys.stdout.flush()
    yield
    sys.stdout.write(f"{name} ends {time.time()}\n")
    sys.stdout.flush()


def _main(way: str, *arguments: str) -> None:
    for library in _LIBRARIES if way == _FIRST else ():
        importlib.import_module(library)
    sys.meta_path.insert(0, _Finder)
    # As the program itself is started.
    sys.argv = [str(_SCRIPT), *arguments]
    runpy.run_path(str(_SCRIPT), run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])
