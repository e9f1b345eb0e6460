"""The run folder, its log and files, and the launcher that turns errors into one line and an exit code."""

import contextlib
import datetime
import difflib
import errno
import fcntl
import itertools
import json
import logging
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from xclip_module import config as schema
from xclip_module import distributed, environment, storage
from xclip_module.config import Config
from xclip_module.distributed import World
from xclip_module.errors import STOPPED, ConfigError, DiskError, MemoryShortage, UserError
from xclip_module.protocols import find_protocol

log = logging.getLogger("xclip_module")

# What a finished run leaves, as patterns in the run folder.
_RESULTS = (
    *("scores.npz", "moments.jsonl", "metrics.json", "bootstrap.npz", "environment.json"),
    *("report.*", "timelines", "pictures", "traceback*"),
)
# Keys that say where and on what, not what.
_PLACES = {"run.root", "run.name", "run.device"}


class Run:
    """One run's folder `<run.root>/<run.name>/`: only the main process writes, every process may ask."""

    def __init__(self, folder: Path, world: World, *, is_terminal: bool):
        """An existing folder; `is_terminal` says whether people watch."""
        self.folder, self.world, self.is_terminal = folder, world, is_terminal

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

    def describe_environment(self, settings: dict[str, Any]) -> str:
        """Writes environment.json and returns the same as a block to paste."""
        report = environment.describe(self.world.device, world_size=self.world.size, settings=settings)
        self.write_json("environment.json", report)
        return environment.as_block(report)


def launch(main: Callable[[Config, Run], Any], *, script: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `main(config, run)` as the program `script` and exits with the documented code.

    The user's values come from `xclip_config.py` beside the script, then from the command line. A `UserError` is one
    line `error: …`; anything unforeseen leaves its traceback in the run folder. Where this process is another program
    than `script`, the end is a SystemExit for it to catch.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    is_program = Path(sys.argv[0]).resolve() == Path(script).resolve()
    code: Any = 0
    try:
        _launch(main, script, arguments)
    except SystemExit as end:
        code = end.code
    if is_program:
        _leave(code)
    sys.exit(code)


def _launch(main: Callable[[Config, Run], Any], script: str, arguments: Sequence[str]) -> None:
    world = World(0, 1, torch.device("cpu"))
    try:
        if "--help" in arguments or "-h" in arguments:
            _say(f"python {Path(script).name} [--protocol=NAME] [--section.key=value …]\n{schema.describe()}")
            return
        config = load_config(Path(script).with_name("xclip_config.py"), arguments)
        _catch_signals()
        world = distributed.start(config.run.device)
        with _run_folder(config, world, Path(script).stem) as folder, _logging(folder, world):
            _run(main, config, Run(folder, world, is_terminal=sys.stderr.isatty()))
        distributed.stop(world)
    except BaseException as error:
        _end(error, None, world)


def _leave(code: Any) -> NoReturn:
    """Ends the process at once: at an ordinary end, a thread that still decodes or computes would abort it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0)


def load_config(path: Path, arguments: Sequence[str]) -> Config:
    """The validated configuration: protocol < the user's file < arguments.

    Raises ConfigError for a file that does not run or holds an unknown key.
    """
    values, protocol = schema.parse_arguments(arguments)
    return schema.resolve(_user_config(path), protocol=find_protocol(protocol), arguments=values)


def _user_config(path: Path) -> Config:
    if not path.is_file():
        return Config()
    try:
        user = runpy.run_path(str(path)).get("CONFIG")
    except TypeError as error:
        raise ConfigError("config file", path, _explain(str(error)), "python run_zeroshot.py --help") from error
    except Exception as error:
        raise ConfigError("config file", path, f"{type(error).__name__}: {error}", "mend that line") from error
    if not isinstance(user, Config):
        raise ConfigError("config file", path, "it sets no CONFIG = Config(…)", "git checkout xclip_config.py")
    return user


def _explain(message: str) -> str:
    """The nearest key for `DataConfig.__init__() got an unexpected keyword argument 'rot'`."""
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    if not found:
        return message
    sections = {kind.__name__: section for section, kind in schema.sections().items()}
    every = schema.keys()
    known = [name.split(".")[1] for name in every if name.startswith(f"{sections.get(found[1], '')}.")]
    close = difflib.get_close_matches(found[2], known or list(schema.sections()), n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return f"unknown key {found[2]} in {found[1]}; {hint}"


def _run(main: Callable[[Config, Run], Any], config: Config, run: Run) -> None:
    """`main` with its end, good or bad, in the log."""
    try:
        if run.world.is_main:
            storage.remove_leftovers(run.folder)
            _set_aside(run.folder, config)
        run.write_json("config.json", schema.to_json(config))
        log.info("run folder %s", run.folder)
        main(config, run)
    except BaseException as error:
        _end(error, run.folder, run.world)


def _set_aside(folder: Path, config: Config) -> None:
    """Moves the results of another configuration to a folder of their own: they fit this one's config.json no more."""
    try:
        kept = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = None
    if kept is not None and _what(kept) == _what(schema.to_json(config)):
        return
    old = [path for pattern in _RESULTS for path in sorted(folder.glob(pattern))]
    if not old:
        return
    place = next(path for n in itertools.count(1) if not (path := folder / f"replaced-{n}").exists())
    with storage.disk_errors(place):
        place.mkdir()
        for path in [*old, *folder.glob("config.json")]:
            path.rename(place / path.name)
    log.warning("%s held results of another configuration, now in %s", folder, place)


def _what(values: Any) -> Any:
    """A configuration as JSON without the keys that only say where it runs."""
    sections = values.items() if isinstance(values, dict) else ()
    return {
        f"{section}.{key}": value
        for section, part in sections
        if isinstance(part, dict)
        for key, value in part.items()
        if f"{section}.{key}" not in _PLACES
    }


def _catch_signals() -> None:
    def stop(number: int, _: Any) -> NoReturn:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # What the caller ignores stays ignored: nohup, a job in the background.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


@contextlib.contextmanager
def _run_folder(config: Config, world: World, script: str) -> Iterator[Path]:
    """The run's folder, the same on every rank, held by one run at a time."""
    with contextlib.ExitStack() as stack:
        folder = _claim(config, script, stack) if world.is_main else None
        yield next(name for name in distributed.gather(folder, world) if name is not None)


def _claim(config: Config, script: str, stack: contextlib.ExitStack) -> Path:
    root, name = Path(config.run.root), config.run.name
    if name:
        _check_name(config)
    else:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{script.removeprefix('run_')}-{'video' if config.data.video else config.data.name}-{now}"
    storage.make_folder(root)
    names = [name] if config.run.name else [name, *(f"{name}-{number}" for number in range(2, 100))]
    for candidate in names:
        folder = root / candidate
        if not config.run.name and folder.exists():
            continue  # another start in the same second
        storage.make_folder(folder)
        if _lock(folder, stack):
            return folder
    holder = (root / names[0] / "lock").read_text().strip()
    raise ConfigError("this run is already going", root / names[0], f"held by {holder}", "another --run.name=NAME")


def _check_name(config: Config) -> None:
    """Refuses a run folder that would lie outside run.root or among the stored features."""
    places = config.run.root, Path(config.run.root, config.run.name), config.data.features
    root, folder, features = (Path(os.path.normpath(Path(place).absolute())) for place in places)
    features = features if config.data.features else root / "features"
    why = "" if root in folder.parents else f"it is no folder under {root}"
    if root in features.parents and features in (folder, *folder.parents):
        why = f"{features} holds the stored features"
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


@contextlib.contextmanager
def _logging(folder: Path, world: World) -> Iterator[None]:
    """Main process: everything to the screen and log.txt. Others: warnings to the screen, with their rank."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if world.is_main:
        with storage.disk_errors(folder / "log.txt"):
            handlers.append(logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace"))
            handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers[0].setFormatter(logging.Formatter("%(message)s" if world.is_main else f"%(message)s [rank {world.rank}]"))
    log.setLevel(logging.INFO if world.is_main else logging.WARNING)
    for handler in handlers:
        log.addHandler(handler)
    # On a full disk our own line says what happened; logging would print a traceback beside it.
    is_loud, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = is_loud
        for handler in handlers:
            log.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()


def _end(error: BaseException, folder: Path | None, world: World) -> NoReturn:
    """One line and the documented exit code for whatever ended the run."""
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, KeyboardInterrupt):
        name = str(error) or "SIGINT"
        _fail(f"stopped by {name}: everything stored is kept; try: the same command again goes on from there", STOPPED)
    is_towers = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if is_towers or isinstance(error, MemoryError):
        attempt = "--model.frames_per_forward=16 (or smaller)" if is_towers else "--data.stride_seconds=10 (or larger)"
        error = MemoryShortage("out of memory", world.device, str(error).split(".")[0], attempt)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = DiskError("disk full", error.filename or folder or "", attempt="free space, or --run.root=FOLDER")
    if isinstance(error, UserError):
        _fail(str(error), error.exit_code)
    text = "".join(traceback.format_exception(error))
    _say(text, sys.stderr)
    place = "the traceback above"
    if folder is not None:
        with contextlib.suppress(OSError):
            (folder / f"traceback-rank{world.rank}.txt").write_text(text)
            place = str(folder / f"traceback-rank{world.rank}.txt")
    _fail(f"a defect of this program: {type(error).__name__}: {place}; try: report it with that traceback", 1)


def _fail(line: str, code: int) -> NoReturn:
    text = f"error: {' '.join(line.split())}"
    if log.handlers:
        log.error("%s", text)
    else:
        _say(text, sys.stderr)
    sys.exit(code)


def _say(text: str, stream: Any = None) -> None:
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
