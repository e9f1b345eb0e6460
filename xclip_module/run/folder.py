"""Which folder a run gets: its name, its lock, and what becomes of what lies in it already."""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xclip_module import config as schema
from xclip_module.config import Config
from xclip_module.errors import ConfigError
from xclip_module.run import distributed, storage
from xclip_module.run.distributed import World

log = logging.getLogger(__name__)

# What a finished run leaves, as patterns in the run folder.
_RESULTS = (
    *("scores.npz", "moments.jsonl", "metrics.json", "metrics.jsonl", "bootstrap.npz", "environment.json"),
    *("report.*", "timelines", "pictures", "traceback*", "head.safetensors", "ranking.csv"),
    *("similarity*.npz", "ranks*.csv"),
)
CHECKPOINTS = "checkpoints"


@contextlib.contextmanager
def hold_folder(config: Config, world: World, script: str, *, goes_on: bool) -> Iterator[Path]:
    """The run's folder, the same on every rank, held by one run at a time; see `claim`."""
    with contextlib.ExitStack() as stack:
        folder = claim(config, script, stack, goes_on=goes_on) if world.is_main else None
        yield next(name for name in distributed.gather(folder, world) if name is not None)


def claim(config: Config, script: str, stack: contextlib.ExitStack, *, goes_on: bool = False) -> Path:
    """The locked folder of a run of `script`, until `stack` closes.

    goes_on: a run without a name gets one from its configuration instead of the time, so that the same command finds
    it again. Raises ConfigError naming who holds it.
    """
    root, name = Path(config.run.root), config.run.name
    is_named = bool(name) or goes_on
    if name:
        _check_name(config)
    else:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        data = "video" if config.data.video else config.data.name
        name = f"{script.removeprefix('run_')}-{data}-{_digest(config) if goes_on else now}"
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


def prepare(folder: Path, config: Config, script: str) -> None:
    """Makes the folder fit this script and configuration: results of another move to a folder of their own.

    Raises ConfigError with the differing keys where the folder holds checkpoints: a run goes on as it began.
    """
    storage.remove_leftovers(folder)
    differing = _differing(folder, config, script)
    if not differing:
        return
    if any((folder / CHECKPOINTS).glob("step-*.pt")):
        shown = ", ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in list(differing.items())[:8])
        why = f"it holds checkpoints of another configuration: {shown}"
        attempt = f"the former values to go on, or another --run.name=NAME (or rm -r {folder}) to begin anew"
        if "config.json" in differing:
            attempt = f"put {folder / 'config.json'} back, or another --run.name=NAME"
        raise ConfigError("cannot go on", folder, why, attempt)
    _set_aside(folder)


def _differing(folder: Path, config: Config, script: str) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (kept, now) for all keys that change results, and "script"; empty for a new folder."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kept = _flat(found)
    except (OSError, ValueError):
        has_results = any(path for pattern in (*_RESULTS, CHECKPOINTS) for path in folder.glob(pattern))
        return {"config.json": ("unreadable", "this one")} if has_results else {}
    # A key that a former version did not know had the value that is now its default.
    defaults, free, now = _flat(schema.to_json(Config())), schema.free_keys(), _flat(schema.to_json(config))
    both = {name: (kept.get(name, defaults.get(name)), value) for name, value in now.items() if name not in free}
    both["script"] = (found.get("script", script) if isinstance(found, dict) else script, script)
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _flat(values: Any) -> dict[str, Any]:
    """A configuration as JSON by dotted key; whatever else a file may hold is left out."""
    sections = values.items() if isinstance(values, dict) else ()
    return {
        f"{section}.{key}": value for section, part in sections if isinstance(part, dict) for key, value in part.items()
    }


def _digest(config: Config) -> str:
    free = schema.free_keys()
    values = {name: value for name, value in _flat(schema.to_json(config)).items() if name not in free}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _set_aside(folder: Path) -> None:
    old = [path for pattern in _RESULTS for path in sorted(folder.glob(pattern))]
    if not old:
        return
    place = next(path for n in itertools.count(1) if not (path := folder / f"replaced-{n}").exists())
    with storage.disk_errors(place):
        place.mkdir()
        for path in [*old, *folder.glob("config.json")]:
            path.rename(place / path.name)
    log.warning("%s held results of another configuration, now in %s", folder, place)


def _check_name(config: Config) -> None:
    """Refuses a run folder that would lie outside run.root or among the stored features and frames."""
    named = config.run.root, str(Path(config.run.root, config.run.name)), config.data.features, config.finetune.cache
    root, folder, *stores = (Path(os.path.normpath(Path(place).absolute())) for place in named)
    features = stores[0] if config.data.features else root / "features"
    frames = stores[1] if config.finetune.cache else root / "frames"
    why = "" if root in folder.parents else f"it is no folder under {root}"
    for store, what in ((features, "features"), (frames, "frames")):
        if root in store.parents and store in (folder, *folder.parents):
            why = f"{store} holds the stored {what}"
    if why:
        raise ConfigError(f"run.name={config.run.name}", why=why, attempt="--run.name=NAME")


def _lock(folder: Path, stack: contextlib.ExitStack) -> bool:
    with storage.disk_errors(folder / "lock", is_users_choice=True):
        file = stack.enter_context((folder / "lock").open("a+", buffering=1, encoding="utf-8"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        is_held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        return not is_held  # anything else: a file system without locks
    with storage.disk_errors(folder / "lock"):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
    return True
