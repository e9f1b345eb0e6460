"""A run's folder: its name, its lock, what becomes of what lies in it already, and `Run`, which writes into it."""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xclip_module import config as schema
from xclip_module.config import Config
from xclip_module.errors import ConfigError
from xclip_module.run import distributed, environment, storage
from xclip_module.run.distributed import World
from xclip_module.run.signals import Signals
from xclip_module.run.status import Status

# A configuration as JSON: section -> key -> value.
Values = Mapping[str, Mapping[str, Any]]

CHECKPOINTS = "checkpoints"
# What a finished run leaves, as patterns in the run folder.
_RESULTS = (
    "scores.npz",
    "moments.jsonl",
    "metrics.json",
    "metrics.jsonl",
    "bootstrap.npz",
    "environment.json",
    "report.*",
    "timelines",
    "pictures",
    "traceback*",
    "head.safetensors",
    "ranking.csv",
    "similarity*.npz",
    "ranks*.csv",
)
# So many keys that differ are named.
_MOST_SHOWN = 8

log = logging.getLogger(__name__)


class Run:
    """One run's folder `<run.root>/<run.name>/`: only the main process writes, every process may ask."""

    def __init__(self, folder: Path, world: World, *, is_terminal: bool, signals: Signals | None = None):
        """An existing folder; `is_terminal` says whether people watch."""
        self.folder, self.world, self.is_terminal = folder, world, is_terminal
        self.signals = signals or Signals()
        self.status = Status(folder, world.rank)
        self.environment = ""

    def write_json(self, name: str, value: Any) -> None:
        """Writes `<folder>/<name>` atomically."""
        if self.world.is_main:
            storage.write_json(self.folder / name, value)

    def write_text(self, name: str, value: str) -> None:
        """Writes `<folder>/<name>` atomically."""
        if self.world.is_main:
            storage.write_text(self.folder / name, value)

    def write_bytes(self, name: str, value: bytes) -> None:
        """Writes `<folder>/<name>` atomically."""
        if self.world.is_main:
            storage.write_bytes(self.folder / name, value)

    def record(self, **row: Any) -> None:
        """Appends one JSON object with the UTC time to metrics.jsonl."""
        if self.world.is_main:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            path = self.folder / "metrics.jsonl"
            with storage.disk_errors(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": now, **row}) + "\n")

    def rewind(self, is_kept: Callable[[dict[str, Any]], bool]) -> None:
        """Takes back the rows of metrics.jsonl that a run will write again, and whatever else is no row of it."""
        path = self.folder / "metrics.jsonl"
        if not self.world.is_main or not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            with contextlib.suppress(ValueError, TypeError, LookupError):
                # A kill may have left a row without its newline, to which the next one would be glued.
                if line.endswith("\n") and is_kept(json.loads(line)):
                    kept.append(line)
        storage.write_text(path, "".join(kept))

    def describe_environment(self, settings: dict[str, Any]) -> None:
        """Writes environment.json; `environment` and the log then hold the same as a block to paste."""
        report = environment.describe(self.world.device, world_size=self.world.size, settings=settings)
        self.write_json("environment.json", report)
        self.environment = environment.as_block(report)
        log.info("%s\n", self.environment)


@contextlib.contextmanager
def locked_folder(script: str, values: Values, world: World, *, resumes: bool) -> Iterator[Path]:
    """The folder of a run of `script` with this configuration, the same on every rank, locked by one run at a time.

    resumes: a run without a name gets one from its configuration instead of the time, so that the same command finds
    it again. Raises ConfigError naming the process that has locked it.
    """
    with contextlib.ExitStack() as stack:
        folder = _locked(script, values, stack, resumes=resumes) if world.is_main else None
        yield next(path for path in distributed.gather(folder, world) if path is not None)


def _locked(script: str, values: Values, stack: contextlib.ExitStack, *, resumes: bool) -> Path:
    root, name = Path(values["run"]["root"]), values["run"]["name"]
    is_named = bool(name) or resumes
    if name:
        _check_name(values)
    else:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        data = "video" if values["data"]["video"] else values["data"]["name"]
        name = f"{script.removeprefix('run_')}-{data}-{_digest(values) if resumes else now}"
    storage.make_folder(root)
    names = [name] if is_named else [name, *(f"{name}-{number}" for number in range(2, 100))]
    for candidate in names:
        folder = root / candidate
        if not is_named and folder.exists():
            continue  # another start in the same second
        storage.make_folder(folder)
        if _lock(folder, stack):
            return folder
    holder = (root / names[0] / "lock").read_text().strip()
    raise ConfigError("this run is already going", root / names[0], f"held by {holder}", "another --run.name=NAME")


def prepare(folder: Path, script: str, values: Values) -> None:
    """Makes the folder fit this script and configuration: results of another move to a folder of their own.

    Raises ConfigError with the differing keys where the folder holds checkpoints: a run goes on as it began.
    """
    storage.remove_leftovers(folder)
    differing = _differing(folder, script, values)
    if not differing:
        return
    if any((folder / CHECKPOINTS).glob("step-*.pt")):
        pairs = list(differing.items())[:_MOST_SHOWN]
        shown = ", ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in pairs)
        reason = f"it holds checkpoints of another configuration: {shown}"
        attempt = f"the former values to go on, or another --run.name=NAME (or rm -r {folder}) to begin anew"
        if "config.json" in differing:
            attempt = f"put {folder / 'config.json'} back, or another --run.name=NAME"
        raise ConfigError("cannot go on", folder, reason, attempt)
    _set_aside(folder)


def _differing(folder: Path, script: str, values: Values) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (kept, now) for all keys that change results, and "script"; empty for a new folder."""
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        has_results = any(path for pattern in (*_RESULTS, CHECKPOINTS) for path in folder.glob(pattern))
        return {"config.json": ("unreadable", "this one")} if has_results else {}
    # A key that a former version did not know had the value that is now its default.
    kept = _by_dotted_key(schema.to_json(Config())) | _by_dotted_key(stored)
    now = _by_dotted_key(values)
    pairs = {name: (kept.get(name), now[name]) for name in now if name not in schema.free_keys()}
    pairs["script"] = (stored.get("script", script) if isinstance(stored, dict) else script, script)
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def _by_dotted_key(values: Any) -> dict[str, Any]:
    """Values by dotted key; whatever else a file may hold is left out."""
    parts = values.items() if isinstance(values, dict) else ()
    return {f"{name}.{key}": value for name, part in parts if isinstance(part, dict) for key, value in part.items()}


def _digest(values: Values) -> str:
    """Changes with every key that changes results."""
    free = schema.free_keys()
    decisive = {name: value for name, value in _by_dotted_key(values).items() if name not in free}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]


def _set_aside(folder: Path) -> None:
    old = [path for pattern in _RESULTS for path in sorted(folder.glob(pattern))]
    if not old:
        return
    aside = next(path for n in itertools.count(1) if not (path := folder / f"replaced-{n}").exists())
    with storage.disk_errors(aside):
        aside.mkdir()
        # The configuration last: as long as it lies here, the next start moves what a kill has left.
        for path in [*old, *folder.glob("config.json")]:
            path.rename(aside / path.name)
    log.warning("%s held results of another configuration, now in %s", folder, aside)


def _check_name(values: Values) -> None:
    """Refuses a run folder that would lie outside run.root or among the stored features and frames."""
    root, name = values["run"]["root"], values["run"]["name"]
    features = values["data"]["features"] or Path(root, "features")
    frames = values["finetune"]["cache"] or Path(root, "frames")
    paths = (root, Path(root, name), features, frames)
    top, folder, *stores = (Path(os.path.normpath(Path(path).absolute())) for path in paths)
    problem = "" if top in folder.parents else f"it is no folder under {top}"
    for store, content in zip(stores, ("features", "frames"), strict=True):
        if top in store.parents and store in (folder, *folder.parents):
            problem = f"{store} holds the stored {content}"
    if problem:
        raise ConfigError(f"run.name={name}", why=problem, attempt="--run.name=NAME")


def _lock(folder: Path, stack: contextlib.ExitStack) -> bool:
    with storage.disk_errors(folder / "lock", is_users_choice=True):
        # Not "w": the name in it is another run's as long as that holds the lock.
        file = stack.enter_context((folder / "lock").open("a+", buffering=1, encoding="utf-8"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        is_taken = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        return not is_taken  # anything else: a file system without locks
    with storage.disk_errors(folder / "lock"):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
    return True
