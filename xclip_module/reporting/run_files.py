"""What a comparison reads of a run folder, and whether several of them may stand side by side."""

import importlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xclip_module.errors import DataError

# Without truth, or with eval.bootstrap=0, a run has none.
_BOOTSTRAP = "bootstrap.npz"
RETRIEVAL, LOCALISATION = "retrieval", "localisation"
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


class Comparability(NamedTuple):
    """What runs of one kind must hold, and share, to be compared.

    keys, split_keys: of metrics.json and of each of its splits.  has_replicates: whether there is a bootstrap.
    facts: of two runs, what -> its value in each; all of them must be equal.  attempt: the way out of a difference.
    """

    keys: frozenset[str]
    split_keys: frozenset[str]
    has_replicates: bool
    facts: Callable[[RunFiles, RunFiles], dict[str, tuple[Any, Any]]]
    attempt: str


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
    rules = _rules_of(first.kind)
    for run in runs[1:]:
        names = f"{first.name} and {run.name}"
        if run.kind != first.kind:
            why = f"a {first.kind} run and a {run.kind} run have no number in common"
            raise DataError("runs of different kinds", names, why, "runs of one kind")
        for what, (expected, met) in rules.facts(first, run).items():
            if expected != met:
                why = f"{_short(expected, met)} against {_short(met, expected)}"
                raise DataError(f"runs of different {what}", names, why, rules.attempt)


def shared_facts(first: RunFiles, second: RunFiles, keys: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    """The split, the splits scored, and of each split that both have what `keys` names: words -> key of metrics.json.

    Of a key that holds a mapping only its names count.
    """
    both = first.metrics["splits"], second.metrics["splits"]
    facts: dict[str, tuple[Any, Any]] = {
        "split": (first.split, second.split),
        "splits scored": (list(both[0]), list(both[1])),
    }
    for split in both[0]:
        if split in both[1]:
            for words, key in keys.items():
                ours, theirs = (splits[split][key] for splits in both)
                is_named = isinstance(ours, Mapping)
                facts[f"{words} in {split}"] = (list(ours), list(theirs)) if is_named else (ours, theirs)
    return facts


def _localisation_facts(first: RunFiles, second: RunFiles) -> dict[str, tuple[Any, Any]]:
    facts = shared_facts(first, second, {"videos": "ids", "truth": "truth", "queries": "queries"})
    facts["intervals"] = first.metrics["protocol"]["intervals"], second.metrics["protocol"]["intervals"]
    return facts


def retrieval_comparison() -> Any:
    """The module that compares retrieval runs; by name, so that a tree without retrieval compares its other runs."""
    return importlib.import_module("xclip_module.reporting.retrieval.comparison")


def _rules_of(kind: str) -> Comparability:
    if kind == RETRIEVAL:
        return retrieval_comparison().RULES
    return Comparability(
        keys=frozenset({"protocol", "track", "untrained"}),
        split_keys=frozenset({"ids", "videos", "queries", "tracks", "truth"}),
        has_replicates=True,
        facts=_localisation_facts,
        attempt="runs with the same --data keys, --eval.bootstrap and --run.seed",
    )


def _short(values: Any, others: Any) -> str:
    """A text whole; of a list its length and the first entries that the other has not."""
    if not isinstance(values, list):
        return str(values)
    extra = [str(name) for name in values if name not in others]
    return f"{len(values)} ({', '.join(extra[:3])}{', …' if len(extra) > 3 else ''})" if extra else str(len(values))


def _read(folder: Path, name: str) -> RunFiles:
    if not folder.is_dir():
        raise DataError("no such run folder", folder, attempt="ls runs")
    path = folder / "metrics.json"
    _check_file(path)
    metrics = _json(path)
    rules = _rules_of(_kind(metrics))
    if rules.has_replicates:
        _check_file(folder / _BOOTSTRAP, " (no truth, or eval.bootstrap=0)")
    for file in ("config.json", "environment.json"):
        _check_file(folder / file)
    config, environment = _json(folder / "config.json"), _json(folder / "environment.json")
    if not metrics.get("splits"):
        raise DataError("nothing to compare", path, "it holds no metrics of a split")
    splits = metrics["splits"].values()
    lacking = rules.keys - set(metrics) | {key for split in splits for key in rules.split_keys - set(split)}
    if lacking:
        why = f"it has no {', '.join(sorted(lacking))}"
        raise DataError("metrics of another version", path, why, "the run again, with this version")
    replicates = _arrays(folder / _BOOTSTRAP) if rules.has_replicates else {}
    return RunFiles(name, metrics, replicates, config, environment)


def _check_file(path: Path, hint: str = "") -> None:
    if not path.is_file():
        raise DataError("not a finished run", path, f"not in this folder{hint}", "the same command again, to its end")


def _kind(metrics: Mapping[str, Any]) -> str:
    return RETRIEVAL if metrics.get("kind") == RETRIEVAL else LOCALISATION


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError("unreadable JSON", path, str(error)) from error
    if not isinstance(content, dict):
        raise DataError("unreadable JSON", path, f"a {type(content).__name__}, expected an object")
    return content


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("unreadable archive", path, str(error)) from error
