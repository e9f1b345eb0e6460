"""The command line: which parts, how long a video, which model."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from xclip_module.benchmark import (
    decoding,
    frames,
    localisation,
    probe,
    retrieval,
    similarity,
    startup,
    training,
    zeroshot,
)
from xclip_module.errors import UserError

_PARTS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "zeroshot": lambda chosen: zeroshot.run(chosen.device, seconds=chosen.seconds, patch=chosen.patch),
    "similarity": lambda chosen: similarity.run(chosen.device),
    "decode": lambda chosen: decoding.run(seconds=chosen.seconds),
    "frames": lambda chosen: frames.run(seconds=chosen.seconds),
    "train": lambda chosen: training.run(chosen.device, clips=chosen.clips, patch=chosen.patch),
    "probe": lambda chosen: probe.run(chosen.device),
    "localisation": lambda chosen: localisation.run(labels=chosen.labels),
    "retrieval": lambda chosen: retrieval.run(chosen.device),
    "startup": lambda chosen: startup.run(),
}


def main(arguments: list[str]) -> int:
    """Prints the tables of the chosen parts; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m xclip_module.benchmark", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(_PARTS)}; all when none is named")
    parser.add_argument("--seconds", type=int, default=300, help="length of the synthetic video")
    parser.add_argument("--patch", type=int, default=32, choices=(32, 16), help="ViT-B/32 or ViT-B/16")
    parser.add_argument("--clips", type=int, default=64, help="batch of a training step")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--labels", type=Path, help="folder of a Cholec80 copy: compares segmenters on simulated curves over its phases"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.parts) - set(_PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(_PARTS)}")
    for part in chosen.parts or _PARTS:
        try:
            sys.stdout.write("\n".join([*_PARTS[part](chosen), "\n"]))
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
