"""The run folder, its log and files, and the launcher that turns errors into one line and an exit code."""

import contextlib
import datetime
import difflib
import errno
import json
import logging
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from xclip_module import config as schema
from xclip_module.config import Config
from xclip_module.errors import STOPPED, ConfigError, DiskError, MemoryShortage, PeerError, UserError
from xclip_module.run import distributed, environment, storage
from xclip_module.run import folder as run_folder
from xclip_module.run.distributed import World
from xclip_module.run.protocols import describe_protocol, find_protocol
from xclip_module.run.signals import Signals
from xclip_module.run.status import Status

log = logging.getLogger("xclip_module")

Main = Callable[[Config, "Run"], Any]
# Also told whether the check is the deep one.
Check = Callable[[Config, "Run", bool], Any]


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
                if line.endswith("\n") and is_kept(json.loads(line)):
                    kept.append(line)
        storage.write_text(path, "".join(kept))

    def describe_environment(self, settings: dict[str, Any]) -> None:
        """Writes environment.json; `environment` and the log then hold the same as a block to paste."""
        report = environment.describe(self.world.device, world_size=self.world.size, settings=settings)
        self.write_json("environment.json", report)
        self.environment = environment.as_block(report)
        log.info("%s\n", self.environment)


def launch(
    main: Main,
    *,
    script: str,
    arguments: Sequence[str] | None = None,
    check: Check | None = None,
    goes_on: bool = False,
) -> NoReturn:
    """Runs `main(config, run)` as the program `script` and exits with the documented code.

    The user's values come from `xclip_config.py` beside the script, then from the command line. A `UserError` is one
    line `error: …`; anything unforeseen leaves its traceback in the run folder. Where this process is another program
    than `script`, the end is a SystemExit for it to catch.

    check: what `--check` and `--check=deep` run instead of `main`, in a run folder of its own.
    goes_on: the same command finds its own run again, also without a name.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    is_program = Path(sys.argv[0]).resolve() == Path(script).resolve()
    code: Any = 0
    try:
        _launch(main, script, arguments, check, goes_on)
    except SystemExit as end:
        code = end.code
    if is_program:
        _leave(code)
    sys.exit(code)


def _launch(main: Main, script: str, arguments: Sequence[str], check: Check | None, goes_on: bool) -> None:
    world = World(0, 1, torch.device("cpu"))
    signals = Signals()
    try:
        if "--help" in arguments or "-h" in arguments:
            more = " [--check | --check=deep]" if check else ""
            _say(f"python {Path(script).name}{more} [--protocol=NAME] [--section.key=value …]\n{schema.describe()}")
            return
        checks = [word for word in arguments if check and word in ("--check", "--check=deep")]
        words = [word for word in arguments if word not in checks]
        config = load_config(Path(script).with_name("xclip_config.py"), words)
        if check and checks:
            main, goes_on = _check_instead(check, is_deep="--check=deep" in checks), False
            config = schema.override(config, {"run.name": ""})
        signals.catch()
        _make_deterministic(config.run.deterministic)
        world = distributed.start(config.run.device)
        name = f"check_{Path(script).stem}" if checks else Path(script).stem
        with run_folder.hold_folder(config, world, name, goes_on=goes_on) as folder, _logging(folder, world):
            if protocol := schema.parse_arguments(words)[1]:
                log.info("%s", describe_protocol(protocol))
            _run(main, config, Run(folder, world, is_terminal=sys.stderr.isatty(), signals=signals), name)
        distributed.stop(world)
    except BaseException as error:
        _end(error, None, world)


def _check_instead(check: Check, *, is_deep: bool) -> Main:
    return lambda config, run: check(config, run, is_deep)


def _make_deterministic(is_asked: bool) -> None:
    """Asks torch for the same bits every time; cuBLAS reads its part of it before the first use of the GPU."""
    if is_asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(is_asked)


def _leave(code: Any) -> NoReturn:
    """Ends the process at once: at an ordinary end, a thread that still decodes or computes would abort it."""
    for stream in (sys.stdout, sys.stderr):
        # None where it was closed before the start.
        with contextlib.suppress(OSError, ValueError, AttributeError):
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


def _run(main: Main, config: Config, run: Run, script: str) -> None:
    """`main` with its end, good or bad, in the log and in status.json."""
    try:
        if run.world.is_main:
            run_folder.prepare(run.folder, config, script)
        run.write_json("config.json", {"script": script, **schema.to_json(config)})
        run.status.update(phase="start")
        log.info("run folder %s", run.folder)
        main(config, run)
        run.status.end(0)
    except BaseException as error:
        _end(error, run, run.world)


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


def _end(error: BaseException, run: Run | None, world: World) -> NoReturn:
    """One line and the documented exit code for whatever ended the run."""
    if isinstance(error, SystemExit):
        raise error
    code, line = _explained(error, run, world)
    text = f"error: {' '.join(line.split())}"
    if run is not None:
        with contextlib.suppress(DiskError):
            run.status.end(code, text, is_echo=isinstance(error, PeerError))
    if log.handlers:
        log.error("%s", text)
    else:
        _say(text, sys.stderr)
    sys.exit(code)


def _explained(error: BaseException, run: Run | None, world: World) -> tuple[int, str]:
    """Exit code and line; a defect's traceback goes to the screen and the run folder."""
    if isinstance(error, KeyboardInterrupt):
        name = str(error) or "SIGINT"
        return STOPPED, f"stopped by {name}: everything stored is kept; try: the same command again goes on from there"
    is_towers = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if is_towers or isinstance(error, MemoryError):
        attempt = "--model.frames_per_forward=16 (or smaller)" if is_towers else "--data.stride_seconds=10 (or larger)"
        error = MemoryShortage("out of memory", world.device, str(error).split(".")[0], attempt)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = DiskError(
            "disk full", error.filename or (run.folder if run else ""), attempt="free space, or --run.root=FOLDER"
        )
    if isinstance(error, UserError):
        return error.exit_code, str(error)
    text = "".join(traceback.format_exception(error))
    _say(text, sys.stderr)
    place = "the traceback above"
    if run is not None:
        with contextlib.suppress(OSError):
            (run.folder / f"traceback-rank{world.rank}.txt").write_text(text)
            place = str(run.folder / f"traceback-rank{world.rank}.txt")
    return 1, f"a defect of this program: {type(error).__name__}: {place}; try: report it with that traceback"


def _say(text: str, stream: Any = None) -> None:
    stream = stream or sys.stdout
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    # A stream that takes nothing must not change the exit code.
    with contextlib.suppress(OSError, ValueError):
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
