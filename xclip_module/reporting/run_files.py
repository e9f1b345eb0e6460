"""What a comparison reads of a run folder, and whether several of them may stand side by side."""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xclip_module.errors import DataError

_BOOTSTRAP = "bootstrap.npz"
_FILES = ("metrics.json", _BOOTSTRAP, "config.json", "environment.json")
RETRIEVAL, LOCALISATION = "retrieval", "localisation"
# What metrics.json must hold of a run of each kind, and of each of its splits.
_KEYS = {
    LOCALISATION: ({"protocol", "track", "untrained"}, {"ids", "videos", "queries", "tracks", "truth"}),
    RETRIEVAL: ({"protocol", "untrained", "skipped"}, {"texts", "videos", "of_texts", "of_videos", "metrics"}),
}
_PROMPTS = re.compile(r", prompts .*$")


class RunFiles(NamedTuple):
    """One run: the name of its folder, the contents of its files, "<split>/<track>/<metric>" -> [B] replicates.

    A retrieval run has no replicates.
    """

    name: str
    metrics: Mapping[str, Any]
    replicates: Mapping[str, np.ndarray]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """ "retrieval" or "localisation"."""
        return _kind(self.metrics)

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

    A retrieval run beside one of localisation never did. Of localisation splits, ids and skipped videos, queries, and
    the bootstrap (draws and seed) must be equal: only then do the same draws mean the same videos. Of retrieval the
    data with the hash of its pairs, the numbers of texts and videos, those left out, and the rules.
    """
    first = runs[0]
    for run in runs[1:]:
        names = f"{first.name} and {run.name}"
        if run.kind != first.kind:
            why = f"a {first.kind} run and a {run.kind} run have no number in common"
            raise DataError("runs of different kinds", names, why, "runs of one kind")
        compared = _compared_retrieval if first.kind == RETRIEVAL else _compared
        for what, (expected, found) in compared(first, run).items():
            if expected != found:
                raise DataError(
                    f"runs of different {what}",
                    names,
                    f"{_short(expected, found)} against {_short(found, expected)}",
                    _ATTEMPTS[first.kind],
                )


_ATTEMPTS = {
    LOCALISATION: "runs with the same --data keys, --eval.bootstrap and --run.seed",
    RETRIEVAL: "runs with the same --data keys and the same video files",
}


def _compared_retrieval(first: RunFiles, second: RunFiles) -> dict[str, tuple[Any, Any]]:
    both = first.metrics["splits"], second.metrics["splits"]
    skipped = first.metrics["skipped"], second.metrics["skipped"]
    protocols = first.metrics["protocol"], second.metrics["protocol"]
    found: dict[str, tuple[Any, Any]] = {"split": (first.split, second.split), "splits scored": _pair(both, list)}
    found["videos left out"] = _pair(skipped, sorted)
    for split in both[0]:
        if split in both[1]:
            for key in ("texts", "videos"):
                found[f"{key} in {split}"] = _pair(both, lambda splits, part=(split, key): splits[part[0]][part[1]])
    # Numbers under other rules are other numbers: see `evaluation.retrieval.ranks`.
    for rule in ("v2t", "ties"):
        found[f"rules ({rule})"] = _pair(protocols, lambda protocol, name=rule: protocol.get(name))
    return found


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
    _check_files(folder, _FILES[:1])
    metrics = _json(folder / _FILES[0])
    is_retrieval = _kind(metrics) == RETRIEVAL
    _check_files(folder, [file for file in _FILES if not (is_retrieval and file == _BOOTSTRAP)])
    config, environment = (_json(folder / file) for file in _FILES[2:])
    if not metrics.get("splits"):
        raise DataError("nothing to compare", folder / _FILES[0], "it holds no metrics of a split")
    keys, split_keys = _KEYS[_kind(metrics)]
    lacking = keys - set(metrics) | {key for split in metrics["splits"].values() for key in split_keys - set(split)}
    if lacking:
        why = f"it has no {', '.join(sorted(lacking))}"
        raise DataError("metrics of another version", folder / _FILES[0], why, "the run again, with this version")
    replicates = {} if is_retrieval else _arrays(folder / _BOOTSTRAP)
    return RunFiles(name, metrics, replicates, config, environment)


def _check_files(folder: Path, files: Sequence[str]) -> None:
    for file in files:
        if not (folder / file).is_file():
            why = "not in this folder" + (" (no truth, or eval.bootstrap=0)" if file == _BOOTSTRAP else "")
            raise DataError("not a finished run", folder / file, why, "the same command again, to its end")


def _kind(metrics: Mapping[str, Any]) -> str:
    return RETRIEVAL if metrics.get("kind") == RETRIEVAL else LOCALISATION


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
