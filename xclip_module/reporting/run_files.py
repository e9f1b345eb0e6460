"""What a comparison reads of a run folder, and whether several of them may stand side by side."""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xclip_module.errors import DataError

_FILES = ("metrics.json", "bootstrap.npz", "config.json", "environment.json")
_KEYS, _SPLIT_KEYS = {"protocol", "track", "untrained"}, {"ids", "videos", "queries", "tracks", "truth"}
_PROMPTS = re.compile(r", prompts .*$")


class RunFiles(NamedTuple):
    """One run: the name of its folder, the contents of its files, "<split>/<track>/<metric>" -> [B] replicates."""

    name: str
    metrics: Mapping[str, Any]
    replicates: Mapping[str, np.ndarray]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def split(self) -> str:
        """Data set, split name and hash. Other prompts are a difference between models, not between tasks."""
        return _PROMPTS.sub("", self.metrics["protocol"]["data"])


def read_runs(folders: Sequence[Path]) -> list[RunFiles]:
    """The runs in the given order, named by their folders, or by the whole path where two folders share a name.

    Raises DataError for a folder or file that is missing, damaged, or without a bootstrap to compare by, and for runs
    that cannot be compared; see `check_same_task`.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise DataError(
            "one run given twice", ", ".join(map(str, folders)), "expected different run folders", "ls runs"
        )
    names = [folder.resolve().name for folder in folders]
    runs = [
        _read(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]
    check_same_task(runs)
    return runs


def check_same_task(runs: Sequence[RunFiles]) -> None:
    """Raises DataError, naming what differs, unless all runs answered the same queries on the same videos.

    Splits, ids and skipped videos, queries, and the bootstrap (draws and seed) must be equal: only then do the same
    draws mean the same videos.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, (expected, found) in _compared(first, run).items():
            if expected != found:
                raise DataError(
                    f"runs of different {what}",
                    f"{first.name} and {run.name}",
                    f"{_short(expected, found)} against {_short(found, expected)}",
                    "runs with the same --data keys, --eval.bootstrap and --run.seed",
                )


def _compared(first: RunFiles, second: RunFiles) -> dict[str, tuple[Any, Any]]:
    both = first.metrics["splits"], second.metrics["splits"]
    found: dict[str, tuple[Any, Any]] = {"split": (first.split, second.split), "splits scored": _pair(both, list)}
    for split in both[0]:
        if split in both[1]:
            found[f"videos in {split}"] = _pair(both, lambda splits, name=split: splits[name]["ids"])
            found[f"truth in {split}"] = _pair(both, lambda splits, name=split: splits[name]["truth"])
            found[f"queries in {split}"] = _pair(both, lambda splits, name=split: list(splits[name]["queries"]))
    found["intervals"] = first.metrics["protocol"]["intervals"], second.metrics["protocol"]["intervals"]
    return found


def _pair(both: tuple[Any, Any], take: Any) -> tuple[Any, Any]:
    return take(both[0]), take(both[1])


def _short(own: Any, other: Any) -> str:
    """A text whole; of a list its length and the first entries that the other has not."""
    if not isinstance(own, list):
        return str(own)
    extra = [str(name) for name in own if name not in other]
    return f"{len(own)} ({', '.join(extra[:3])}{', …' if len(extra) > 3 else ''})" if extra else str(len(own))


def _read(folder: Path, name: str) -> RunFiles:
    if not folder.is_dir():
        raise DataError("no such run folder", folder, attempt="ls runs")
    for file in _FILES:
        if not (folder / file).is_file():
            why = "not in this folder" + (" (no truth, or eval.bootstrap=0)" if file == "bootstrap.npz" else "")
            raise DataError("not a finished run", folder / file, why, "the same command again, to its end")
    metrics, config, environment = (_json(folder / file) for file in (_FILES[0], *_FILES[2:]))
    if not metrics.get("splits"):
        raise DataError("nothing to compare", folder / _FILES[0], "it holds no metrics of a split")
    lacking = _KEYS - set(metrics) | {key for split in metrics["splits"].values() for key in _SPLIT_KEYS - set(split)}
    if lacking:
        why = f"it has no {', '.join(sorted(lacking))}"
        raise DataError("metrics of another version", folder / _FILES[0], why, "the run again, with this version")
    return RunFiles(name, metrics, _arrays(folder / _FILES[1]), config, environment)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError("unreadable JSON", path, str(error)) from error
    if not isinstance(found, dict):
        raise DataError("unreadable JSON", path, f"a {type(found).__name__}, expected an object")
    return found


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("unreadable archive", path, str(error)) from error
