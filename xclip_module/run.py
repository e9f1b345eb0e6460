"""The run folder, its log and files, and the launcher that turns errors into one line and an exit code."""

import contextlib
import datetime
import difflib
import errno
import fcntl
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
    line `error: …`; anything unforeseen leaves its traceback in the run folder.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    world = World(0, 1, torch.device("cpu"))
    try:
        if "--help" in arguments or "-h" in arguments:
            _say(f"python {Path(script).name} [--protocol=NAME] [--section.key=value …]\n{schema.describe()}")
            sys.exit(0)
        config = load_config(Path(script).with_name("xclip_config.py"), arguments)
        _catch_signals()
        world = distributed.start(config.run.device)
        with _run_folder(config, world, Path(script).stem) as folder, _logging(folder, world):
            _run(main, config, Run(folder, world, is_terminal=sys.stderr.isatty()))
        distributed.stop(world)
    except BaseException as error:
        _end(error, None, world)
    sys.exit(0)


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
        run.write_json("config.json", schema.to_json(config))
        log.info("run folder %s", run.folder)
        main(config, run)
    except BaseException as error:
        _end(error, run.folder, run.world)


def _catch_signals() -> None:
    def stop(number: int, _: Any) -> NoReturn:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


@contextlib.contextmanager
def _run_folder(config: Config, world: World, script: str) -> Iterator[Path]:
    """The run's folder, the same on every rank, held by one run at a time."""
    with contextlib.ExitStack() as stack:
        folder = _claim(config, script, stack) if world.is_main else None
        yield next(name for name in distributed.gather(folder, world) if name is not None)


def _claim(config: Config, script: str, stack: contextlib.ExitStack) -> Path:
    root, name = Path(config.run.root), config.run.name
    if not name:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{script.removeprefix('run_')}-{'video' if config.data.video else config.data.name}-{now}"
    names = [name] if config.run.name else [name, *(f"{name}-{number}" for number in range(2, 100))]
    for candidate in names:
        folder = root / candidate
        try:
            with storage.disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=bool(config.run.name))
        except FileExistsError:
            continue  # another start in the same second
        if _lock(folder, stack):
            return folder
    holder = (root / names[0] / "lock").read_text().strip()
    raise ConfigError("this run is already going", root / names[0], f"held by {holder}", "another --run.name=NAME")


def _lock(folder: Path, stack: contextlib.ExitStack) -> bool:
    file = stack.enter_context((folder / "lock").open("a+"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        is_held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        return not is_held  # anything else: a file system without locks
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
    file.flush()
    return True


@contextlib.contextmanager
def _logging(folder: Path, world: World) -> Iterator[None]:
    """Main process: everything to the screen and log.txt. Others: warnings to the screen, with their rank."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if world.is_main:
        with storage.disk_errors(folder / "log.txt"):
            handlers.append(logging.FileHandler(folder / "log.txt", encoding="utf-8"))
            handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers[0].setFormatter(logging.Formatter("%(message)s" if world.is_main else f"%(message)s [rank {world.rank}]"))
    log.setLevel(logging.INFO if world.is_main else logging.WARNING)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def _end(error: BaseException, folder: Path | None, world: World) -> NoReturn:
    """One line and the documented exit code for whatever ended the run."""
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, KeyboardInterrupt):
        name = str(error) or "SIGINT"
        _fail(f"stopped by {name}: everything stored is kept; try: the same command again goes on from there", STOPPED)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        why = str(error).split(".")[0]
        error = MemoryShortage("out of memory", world.device, why, "--model.frames_per_forward=16 (or smaller)")
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
    (stream or sys.stdout).write(text + "\n")
