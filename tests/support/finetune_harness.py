"""Runs `run_finetune.py` in forks of one process that has imported everything, and ends them at random moments.

`python tests/support/finetune_harness.py ROOT SEED KILLS SIGNAL ARGUMENT…` prints one JSON object: what differs between
the run that was ended KILLS times and the one that was not.
"""

import importlib
import json
import os
import pkgutil
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import run_finetune
import xclip_module
from xclip_module.check import check_finetune
from xclip_module.run.launch import launch
from xclip_module.training import checkpoint

SCRIPT = str(Path(run_finetune.__file__))
STEADY = ("step", "split", "loss", "floor", "lr", "grad_norm", "scale", "skipped", "AUROC", "mAP@0.5")


def begin(root: Path, name: str, arguments: list[str]) -> int:
    """Forks a run; its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    log = os.open(root / f"{name}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        words = [f"--run.root={root}", f"--run.name={name}", *arguments]
        launch(run_finetune.main, script=SCRIPT, arguments=words, check=check_finetune, resumes=True)
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        os._exit(code if isinstance(code, int) else 1)


def finish(child: int) -> int:
    """Waits for a run; its exit code, negative for the signal that ended it."""
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)


def differences(one, other, place=""):
    """Where two nested states differ, bit by bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [place]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        return [found for n in range(len(one)) for found in differences(one[n], other[n], f"{place}/{n}")]
    return [] if one == other else [f"{place}: {one!r} and {other!r}"[:200]]


def outcome(folder: Path) -> dict:
    """All of a finished run that must not depend on how often it was ended."""
    state = checkpoint.newest(folder / "checkpoints").state
    state.pop("facts")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "state": state,
        "rows": [{name: row[name] for name in STEADY if name in row} for row in rows if "step" in row],
        "best": checkpoint.hashlib.sha256((folder / "best" / "model.safetensors").read_bytes()).hexdigest(),
        "last": checkpoint.hashlib.sha256((folder / "last" / "model.safetensors").read_bytes()).hexdigest(),
        "splits": metrics["splits"],
        "scores": torch.frombuffer(bytearray((folder / "scores.npz").read_bytes()), dtype=torch.uint8),
    }


def import_everything() -> None:
    """What a run imports when it needs it: a fork that did so itself would be killed before its first step."""
    for module in pkgutil.walk_packages(xclip_module.__path__, "xclip_module."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main(root: Path, seed: int, kills: int, number: int, arguments: list[str]) -> dict:
    """Whole run, then the same with `kills` signals at random moments of it; codes of the ended starts."""
    import_everything()
    start = time.monotonic()
    code = finish(begin(root, "whole", arguments))
    seconds = time.monotonic() - start
    assert code == 0, (root / "whole.out").read_text()
    draw, codes = random.Random(seed), []
    while len(codes) < kills:
        child = begin(root, "killed", arguments)
        # A start takes about a second. Together the killed starts have time for half of what there is to do, so that
        # none is done before its signal, on a machine that is now twice as fast either.
        time.sleep(draw.uniform(0.05, 1 + seconds / kills / 2))
        os.kill(child, number)
        codes.append(finish(child))
    code = finish(begin(root, "killed", arguments))
    assert code == 0, (root / "killed.out").read_text()[-3000:]
    found = differences(outcome(root / "whole"), outcome(root / "killed"))
    text = (root / "killed.out").read_text()
    return {"seconds": seconds, "codes": codes, "resumed": text.count("goes on from step"), "differences": found}


if __name__ == "__main__":
    chosen = getattr(signal, sys.argv[4])
    sys.stdout.write(
        json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), chosen, sys.argv[5:])) + "\n"
    )
