"""The command line: which parts, how long a video, which model."""

import argparse
import sys

import torch

from xclip_module.benchmark import decoding, similarity, zeroshot

_PARTS = ("zeroshot", "similarity", "decode")


def main(arguments: list[str]) -> None:
    """Prints the tables of the chosen parts."""
    parser = argparse.ArgumentParser(prog="python -m xclip_module.benchmark", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(_PARTS)}; all when none is named")
    parser.add_argument("--seconds", type=int, default=300, help="length of the synthetic video")
    parser.add_argument("--patch", type=int, default=32, choices=(32, 16), help="ViT-B/32 or ViT-B/16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.parts) - set(_PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(_PARTS)}")
    device = torch.device(chosen.device)
    runs = {
        "zeroshot": lambda: zeroshot.run(device, seconds=chosen.seconds, patch=chosen.patch),
        "similarity": lambda: similarity.run(device),
        "decode": lambda: decoding.run(torch.device("cpu"), seconds=chosen.seconds),
    }
    for part in chosen.parts or _PARTS:
        sys.stdout.write(f"{runs[part]()}\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
