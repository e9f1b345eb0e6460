"""The launcher: from a command line to `main(config, run)`, and from what ends that to one line and an exit code."""

import contextlib
import errno
import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from xclip_module import config as schema
from xclip_module.errors import STOPPED, DiskError, MemoryShortage, PeerError, UserError
from xclip_module.run import distributed, storage
from xclip_module.run import folder as run_folder
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.run.protocols import describe_protocol
from xclip_module.run.signals import Signals
from xclip_module.run.user_config import load_config

# Of configuration and run; a check also of `is_deep`.
Main = Callable[..., Any]

log = logging.getLogger("xclip_module")


def launch(
    main: Main, *, script: str, arguments: Sequence[str] | None = None, check: Main | None = None, resumes: bool = False
) -> NoReturn:
    """Runs `main(config, run)` as the program `script` and exits with the documented code.

    The user's values come from `xclip_config.py` beside the script, then from the command line. A `UserError` is one
    line `error: …`; anything unforeseen leaves its traceback in the run folder. Where this process is another program
    than `script`, the end is a SystemExit for it to catch.

    check: what `--check` and `--check=deep` run instead of `main`, in a run folder of its own.
    resumes: the same command finds its own run again, also without a name.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    is_program = Path(sys.argv[0]).resolve() == Path(script).resolve()
    code: Any = 0
    try:
        _launch(main, script, arguments, check, resumes)
    except SystemExit as end:
        code = end.code
    if is_program:
        _leave(code)
    sys.exit(code)


def _launch(main: Main, script: str, arguments: Sequence[str], check: Main | None, resumes: bool) -> None:
    world = World(0, 1, "cpu")
    signals = Signals()
    try:
        if "--help" in arguments or "-h" in arguments:
            more = " [--check | --check=deep]" if check else ""
            _say(f"python {Path(script).name}{more} [--protocol=NAME] [--section.key=value …]\n{schema.describe()}")
            return
        checks = [word for word in arguments if check and word in ("--check", "--check=deep")]
        words = [word for word in arguments if word not in checks]
        config = load_config(Path(script).with_name("xclip_config.py"), words)
        name = Path(script).stem
        if check and checks:
            main, resumes = functools.partial(check, is_deep="--check=deep" in checks), False
            config, name = schema.override(config, {"run.name": ""}), f"check_{name}"
        _open_streams()
        signals.catch()
        _make_deterministic(config.run.deterministic)
        world = distributed.start(config.run.device)
        values = schema.to_json(config)
        with run_folder.locked_folder(name, values, world, resumes=resumes) as folder, _logging(folder, world):
            if protocol := schema.parse_arguments(words)[1]:
                log.info("%s", describe_protocol(protocol))
            run = Run(folder, world, is_terminal=sys.stderr.isatty(), signals=signals)
            _run(lambda: main(config, run), run, name, values)
        distributed.stop(world)
    except BaseException as error:
        _end(error, None, world)


def _open_streams() -> None:
    """Gives a stream that was closed before the start (`2>&-`) somewhere to write to: it is None here."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def _make_deterministic(is_asked: bool) -> None:
    """Asks torch for the same bits every time; cuBLAS reads its part of it before the first use of the GPU."""
    # Torch starts without: only a process that has loaded it may have to take an earlier wish back.
    if not is_asked and "torch" not in sys.modules:
        return
    import torch

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


def _run(body: Callable[[], Any], run: Run, script: str, values: run_folder.Values) -> None:
    """`body` with its end, good or bad, in the log and in status.json."""
    try:
        if run.world.is_main:
            run_folder.prepare(run.folder, script, values)
        run.write_json("config.json", {"script": script, **values})
        run.status.update(phase="start")
        log.info("run folder %s", run.folder)
        body()
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
    # By its name: torch may not be loaded. Its CPU allocator raises a plain RuntimeError.
    is_towers = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    if is_towers or isinstance(error, MemoryError):
        attempt = "--model.frames_per_forward=16 (or smaller)" if is_towers else "--data.stride_seconds=10 (or larger)"
        error = MemoryShortage("out of memory", world.device, str(error).split(".")[0], attempt)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or (run.folder if run else "")
        error = DiskError("disk full", place, attempt="free space, or --run.root=FOLDER")
    if isinstance(error, UserError):
        return error.exit_code, str(error)
    text = "".join(traceback.format_exception(error))
    _say(text, sys.stderr)
    kept = "the traceback above"
    if run is not None:
        path = run.folder / f"traceback-rank{world.rank}.txt"
        with contextlib.suppress(OSError):
            path.write_text(text)
            kept = str(path)
    return 1, f"a defect of this program: {type(error).__name__}: {kept}; try: report it with that traceback"


def _say(text: str, stream: Any = None) -> None:
    stream = stream or sys.stdout
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    # A stream that takes nothing must not change the exit code.
    with contextlib.suppress(OSError, ValueError):
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
