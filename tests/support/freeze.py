"""Proves that a refactoring changes no result byte: runs everything in a checkout and keeps what came out.

    python tests/support/freeze.py record TREE MANIFEST.json [--work FOLDER] [--only CASE,…] [--fresh]
    python tests/support/freeze.py compare MANIFEST.json OTHER.json

`record` copies the checkout TREE into the work folder, so that every path and time of change that goes into a key is
the same for every tree, and knows nothing of it but its command lines and the test helpers that make the inputs. The
manifest has, per case, every file that its runs left and what they printed:

- the SHA-256 of a file without times. Of .safetensors with the header's entries in order: their own order is random;
- of other files the lines, without times, rates, memory, host, process ids, commit and the place of the work folder;
  very long lines as a digest, and without the progress that is printed every 30 seconds;
- of a checkpoint (.pt) every value by name, tensors as a digest.

Both manifests must come from one machine, one Python environment and one work folder. A run is a fork of this process,
which has imported the third-party packages once; `--fresh` starts a new interpreter for each, for the same manifest.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Manifest = dict[str, dict[str, dict[str, Any]]]

_PRELOADED = ("torch", "torchvision", "transformers", "sklearn.metrics", "pandas", "matplotlib.backends.backend_svg")
_PRELOADED += ("transformers.models.clip.modeling_clip", "transformers.models.x_clip.modeling_x_clip", "tokenizers")
_PRELOADED += ("decord", "av", "jinja2", "ftfy", "PIL.Image", "safetensors.torch", "tqdm", "scipy.optimize")
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "PYTHONUTF8": "1", "PYTHONPATH": ""}
_TIMEOUT = 600
# Of all inputs, in nanoseconds: the time of change is part of a feature file's key.
_CHANGED = 1_700_000_000 * 10**9


# Cases ----------------------------------------------------------------------------------------------------------------

# Per case its runs: `name:` and the words behind `python`, of a module those behind `python -m xclip_module.`. A script
# gets `_COMMON` as well. {here} is the folder of the case, {inputs} that of `_write_inputs`. The last of a key holds.
_COMMON = "--run.root={here}/runs --run.name={name} --run.precision=fp32 --run.device=cpu"
_GROUPS = {
    "pairs": "--data.name=msrvtt-9k --data.root={inputs}/msrvtt/videos --data.annotations={inputs}/msrvtt/annotations "
    "--data.frames_per_clip=4 --model.weights=untrained:{inputs}/msrvtt/model --eval.bootstrap=0",
    "lsmdc": "--data.name=lsmdc --data.root={inputs}/lsmdc/videos --data.annotations={inputs}/lsmdc/annotations",
    "own": "'--data.queries=a clip applier closes the cystic duct; the gallbladder is put in a bag' --data.video=",
    "probe": "run_linear_probe.py --probe.max_steps=60 --probe.temporal_epochs=2 --eval.bootstrap=50",
    "train": "run_finetune.py --finetune.log_every_steps=2",
    "infonce": "--finetune.batch_size=7 --finetune.micro_batch_size=3 --finetune.epochs=2 --finetune.loss=infonce "
    "--finetune.optimizer=mmaction2 --finetune.lr=1e-3",
    "demo": "data/demo/videos/video10.mp4",
    "judged": "--predictions={here}/runs/demo/moments.jsonl --ground-truth={here}/runs/demo/moments.jsonl",
}
_CASES = {
    "help": """
        zeroshot: run_zeroshot.py --help  linear_probe: run_linear_probe.py --help  finetune: run_finetune.py --help
        localisation: evaluation.localisation --help  retrieval: evaluation.retrieval --help""",
    "mistakes": """
        typo: run_zeroshot.py --data.rot=x  number: run_zeroshot.py --data.stride_seconds=four
        no_root: run_zeroshot.py --data.name=cholec80 --data.root={here}/nowhere
        no_video: run_zeroshot.py {own}{here}/nowhere.mp4  broken_video: run_zeroshot.py {own}{inputs}/broken.mp4
        missing_videos: run_zeroshot.py --data.name=cholec80 --data.root={inputs}/cholec80
        empty_query: run_zeroshot.py --data.video={demo} '--data.queries=a;;b'
        no_weights: run_zeroshot.py {own}{demo} --model.weights={here}/nowhere.pt
        hub: run_zeroshot.py {own}{demo} --model.weights=openai/clip-vit-base-patch32
        family: run_zeroshot.py {pairs} --model.family=clip4clip  head: run_zeroshot.py {pairs} --model.head=nowhere
        header: run_zeroshot.py --protocol=xclip_msrvtt_vit32 {pairs}  probe_pairs: run_linear_probe.py {pairs}
        protocol: run_zeroshot.py --protocol=cholec80  jitter: run_finetune.py {pairs} --finetune.jitter_seconds=1
        localisation: evaluation.localisation --predictions={here}/nowhere --ground-truth={here}/nowhere
        retrieval: evaluation.retrieval {here}/nowhere  report_nowhere: reporting.report {here}/nowhere {here}
        report: reporting.report {here}  retrieval_check: datasets.retrieval_check nothing
        slots: run_zeroshot.py {own}{demo} --data.frames_per_clip=7  cholec80: datasets.cholec80 {here}/nowhere""",
    "zeroshot": """
        demo: run_zeroshot.py
        compared: run_zeroshot.py --eval.track=+query-set --eval.prompt_sets=all --eval.background=ours
        ordered: run_zeroshot.py --eval.track=+procedure-order --eval.generator=scan --eval.query_norm=softmax
            --data.evaluate=val --eval.bootstrap=0
        judged: evaluation.localisation {judged}  judged_json: evaluation.localisation {judged} --json
        judged_test: evaluation.localisation {judged} --split=test
        report: reporting.report {here}/runs/demo {here}/runs/compared --output={here}/report""",
    "probe": """
        shots: {probe} --probe.shots=1,2 --probe.draws=2 --probe.temporal=tcn
        refit: {probe} --probe.features=frame --probe.penalty=1 --probe.refit=train+val --probe.temporal=causal-tcn
        head: run_zeroshot.py --model.head={here}/runs/shots/head.safetensors --eval.bootstrap=50""",
    "finetune": """
        cached: {train} --finetune.epochs=0.15 --finetune.batch_size=8 --finetune.micro_batch_size=4
            --finetune.validate_every_steps=5 --finetune.save_every_steps=3 --eval.bootstrap=50
        video: {train} --finetune.epochs=0.1 --finetune.batch_size=8 --finetune.frames=video --finetune.export=fp16
            --finetune.loss=classification --finetune.optimizer=bertadam --finetune.hard_negatives=0.25
            --finetune.balance_phases=true --finetune.prompt_sets=templates --eval.bootstrap=0 --data.evaluate=val""",
    "own": """
        one: run_zeroshot.py {own}{demo}  folder: run_zeroshot.py {own}{inputs}/recordings
        moments: run_zeroshot.py --data.name=moments --data.root={inputs}/recordings
            --data.annotations={inputs}/moments.csv""",
    "retrieval": """
        all: run_zeroshot.py {pairs}  two_stage: run_zeroshot.py {pairs} --eval.two_stage=2
        lsmdc: run_zeroshot.py {pairs} {lsmdc} --data.frame_rule=spread --eval.v2t=any-caption
        clip4clip: run_zeroshot.py {pairs} --model.weights=untrained:{inputs}/clip4clip --model.family=clip4clip
        ms_xclip: run_zeroshot.py {pairs} --model.weights={inputs}/ms-xclip --model.tokenizer={inputs}/msrvtt/model
        judged: evaluation.retrieval {here}/runs/all/similarity.npz
        judged_json: evaluation.retrieval {here}/runs/all/similarity.npz --json
        report: reporting.report {here}/runs/all {here}/runs/two_stage --output={here}/report
        check: datasets.retrieval_check msrvtt-9k --annotations={inputs}/msrvtt/annotations --videos={inputs}/msrvtt""",
    "retrieval_finetune": """
        pairs: {train} {pairs} {infonce}  again: {train} {pairs} {infonce} --run.name=pairs
        chosen: {train} {pairs} {lsmdc} --finetune.batch_size=2 --finetune.epochs=3 --finetune.one_sentence=true""",
    "checks": """
        zeroshot: run_zeroshot.py --check  linear_probe: run_linear_probe.py --check  finetune: run_finetune.py --check
        zeroshot_pairs: run_zeroshot.py {pairs} --check  finetune_pairs: run_finetune.py {pairs} --check""",
    "cholec80": """
        labels: datasets.cholec80 {inputs}/cholec80 --labels-only  videos: datasets.cholec80 {inputs}/cholec80
        run: run_zeroshot.py --data.name=cholec80 --data.root={inputs}/cholec80 --data.skip_unreadable=true
            --data.stride_seconds=2 --model.weights=untrained:data/demo/model --eval.bootstrap=20""",
}


def steps(case: str, work: Path) -> list[tuple[str, list[str]]]:
    """Name and words of every run of a case."""
    here, inputs = work / case, work / "inputs"
    groups = {name: text.format(here=here, inputs=inputs) for name, text in _GROUPS.items()}
    found: list[tuple[str, list[str]]] = []
    for word in shlex.split(_CASES[case].format(**groups, here=here, inputs=inputs)):
        if word.endswith(":"):
            found.append((word[:-1], []))
        else:
            found[-1][1].append(word)
    for name, words in found:
        if words[0].endswith(".py"):
            words[1:1] = shlex.split(_COMMON.format(here=here, name=name))
        else:
            words[:1] = ["-m", f"xclip_module.{words[0]}"]
    return found


def _write_inputs(inputs: Path) -> None:
    """Small data sets and models, by the test helpers of the tree itself, and recordings."""
    sys.path[1:1] = ["tests/support", "tests"]
    retrieval, factory, cholec80 = map(importlib.import_module, ("small_retrieval", "models_factory", "cholec80_tree"))
    retrieval.write_msrvtt(inputs / "msrvtt")
    retrieval.write_lsmdc(inputs / "lsmdc")
    shutil.copytree(inputs / "msrvtt" / "model", inputs / "clip4clip")
    config = json.loads((inputs / "clip4clip" / "config.json").read_text())
    config["spec"] |= {"family": "clip4clip", "header": "transformer", "header_layers": 1}
    (inputs / "clip4clip" / "config.json").write_text(json.dumps(config))
    factory.tiny_ms_xclip(config["spec"]["vocabulary"]).save_pretrained(inputs / "ms-xclip")
    cholec80.write_copy(inputs / "cholec80", [1, 33, 41, 42], seconds=20)
    (inputs / "recordings").mkdir()
    for name in ("video03.mp4", "video08.mp4", "video10.mp4"):
        shutil.copy(f"data/demo/videos/{name}", inputs / "recordings")
    rows = "video_id,text,start_time,end_time", "video03,a clip,10,20", "video08,a clip,0,30", "video10,a bag,50,70"
    (inputs / "moments.csv").write_text("\n".join(rows) + "\n")
    (inputs / "broken.mp4").write_bytes(bytes(5000))


# Recording ------------------------------------------------------------------------------------------------------------


def record(tree: Path, work: Path, *, only: Sequence[str] = (), fresh: bool = False) -> Manifest:
    """Runs the cases in a copy of `tree` below `work`, which is wiped before; {case: {file: what is in it}}."""
    start, work = time.monotonic(), work.resolve()
    if unknown := set(only) - set(_CASES):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(_CASES)}")
    os.environ.update(_ENVIRONMENT)
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _claim(work)
    commit = _copy(tree, work / "tree")
    if _forked(work, _write_inputs, work / "inputs", output=work / "making") != 0:
        raise SystemExit(f"the inputs cannot be made: {(work / 'making.stderr').read_text()}")
    for path in [*(work / "tree" / "data").rglob("*"), *(work / "inputs").rglob("*")]:
        os.utime(path, ns=(_CHANGED, _CHANGED))
    found = {"inputs": _entries(work / "inputs", work, commit)}
    for case in only or _CASES:
        _run(case, work, fresh=fresh)
        found[case] = _entries(work / case, work, commit)
    count, seconds, computed = sum(map(len, found.values())), time.monotonic() - start, sum(os.times()[:4])
    sys.stderr.write(f"{count} files in {seconds:.0f} s, {computed:.0f} s of a core\n")
    return found


def _claim(work: Path) -> None:
    """An empty folder, held by the lock beside it until this process ends."""
    lock = Path(f"{work}.lock")
    if work.exists() and any(work.iterdir()) and not lock.exists():
        raise SystemExit(f"{work} is not empty and none of ours; try: another --work=FOLDER")
    work.mkdir(parents=True, exist_ok=True)
    try:
        fcntl.flock(os.open(lock, os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise SystemExit(f"another record is working in {work}; try: wait for it") from error
    shutil.rmtree(work)
    work.mkdir()


def _copy(tree: Path, place: Path) -> str:
    """The files that git knows or would take, as a repository of their own; its commit."""

    def git(folder: Path, *words: str) -> str:
        return subprocess.run(["git", "-C", folder, *words], stdout=subprocess.PIPE, text=True, check=True).stdout

    for name in filter(None, git(tree, "ls-files", "-co", "--exclude-standard", "-z").split("\0")):
        if (tree / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree / name, place / name)
    git(place, "init", "-q")
    git(place, "add", "-A")
    who = ("-c", "user.name=freeze", "-c", "user.email=freeze@localhost", "-c", "commit.gpgsign=false")
    git(place, *who, "commit", "-qm", "copy")
    return git(place, "rev-parse", "HEAD").strip()


def _run(case: str, work: Path, *, fresh: bool) -> None:
    program = (lambda words: os.execv(sys.executable, [sys.executable, *words])) if fresh else _as_program
    for name, words in steps(case, work):
        start, printed = time.monotonic(), work / case / "printed" / name
        printed.parent.mkdir(parents=True, exist_ok=True)
        code = _forked(work, program, words, output=printed)
        Path(f"{printed}.exit").write_text(f"{code}\n")
        sys.stderr.write(f"{case} {name}: exit {code}, {time.monotonic() - start:.1f} s\n")


def _forked(work: Path, function: Callable[[Any], None], argument: Any, *, output: Path) -> int | None:
    """The exit code of `function(argument)` in a fork whose folder is the tree; None where it took too long."""
    process = multiprocessing.get_context("fork").Process(target=_in_tree, args=(work, output, function, argument))
    process.start()
    process.join(_TIMEOUT)
    if (code := process.exitcode) is None:
        process.kill()
        process.join()
    return code


def _in_tree(work: Path, output: Path, function: Callable[[Any], None], argument: Any) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", buffering=1) for number in (1, 2))
    os.chdir(work / "tree")
    sys.path[0] = str(work / "tree")
    function(argument)


def _as_program(words: Sequence[str]) -> None:
    if words[0] == "-m":
        sys.argv = ["-m", *words[2:]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(str(Path(words[0]).absolute()), run_name="__main__")


# Manifests ------------------------------------------------------------------------------------------------------------

# Files whose lines are kept; of any other the digest.
_LINES = ("metrics.json", "metrics.jsonl", "environment.json", "status.json", "config.json", "log.txt", "lock", ".md")
_LINES += (".html", ".stdout", ".stderr", ".exit", ".sha256")
_LONGEST = 300
_MEASURED = ("seconds", "eta_seconds", "clips_per_second", "data_wait", "memory_gb", "memory_gib", "pid", "cores")
_PROGRESS = re.compile(r"(?:INFO )?[\w -]+: [\d.]+ of \S+ \w+, \d+ s, about \S+ s left.*")
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", ""),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00|\d{8}T\d{6}Z", "<time>"),
        (rf'("(?:{"|".join(_MEASURED)})": )[\d.e+-]+', r'\1"<number>"'),
        (r'("(?:host|cpu|system)": )"[^"]*"', r'\1"<host>"'),
        (r"^((?:cpu|cores|memory_gib|system|settings\.seconds) +)\S.*", r"\1<host>"),
        (r"^process \d+ on \S+", "process on <host>"),
        (r"\d+ s \(\d+:\d\d(?::\d\d)? mm:ss\)", "<time>"),
        (r"(epochs?), [\d.]+ s; ", r"\1, <time>; "),
        (r"clips/s [\d.]+  data wait \d+%  memory [\d.]+ GB  ETA [\d:]+", "<rates>"),
        (r"^((?:INFO )?(?:ok|videos): .*), [\d.]+ s$", r"\1, <time>"),
        (r"(?<=[ (])\d+:\d\d:\d\d(?=[ ,)].*UTC; )|(?<=ends about )\w+ \d+ \w+ \d+:\d+ UTC", "<time>"),
        (r"^((?:INFO )?memory:) [\d.]+ GB", r"\1 <number> GB"),
        (r"[\d.]+ (GB|MB) are free", r"<number> \1 are free"),
    )
]


def _entries(folder: Path, work: Path, commit: str) -> dict[str, dict[str, Any]]:
    marks = {str(work): "<work>", commit: "<commit>", commit[:12]: "<commit>"}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {_plain(path.relative_to(folder).as_posix()): _entry(path, marks) for path in files}


def _entry(path: Path, marks: Mapping[str, str]) -> dict[str, Any]:
    if path.suffix == ".pt":
        import torch  # comparing needs none

        return {"content": list(_values(torch.load(path, weights_only=True, map_location="cpu"), ""))}
    if not path.name.endswith(_LINES):
        return {"sha256": _digest(path)}
    text = path.read_text(encoding="utf-8", errors="backslashreplace")
    for place, mark in marks.items():
        text = text.replace(place, mark)
    if path.suffix == ".sha256":  # of a checkpoint, which holds times
        text = re.sub(r"\b[0-9a-f]{64}\b", "<sha256>", text)
    lines = map(_plain, text.split("\n"))
    return {"content": [_short(line) for line in lines if not _PROGRESS.fullmatch(line)]}


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        start = 8 + int.from_bytes(content[:8], "little")
        content = json.dumps(json.loads(content[8:start]), sort_keys=True).encode() + content[start:]
    return hashlib.sha256(content).hexdigest()


def _plain(line: str) -> str:
    for pattern, replacement in _RULES:
        line = pattern.sub(replacement, line)
    return line


def _short(line: str) -> str:
    digest = f"{line[:60]}… {len(line)} characters, sha256 {hashlib.sha256(line.encode()).hexdigest()}"
    return digest if len(line) > _LONGEST else line


def _values(value: Any, place: str) -> Iterator[str]:
    """A line per value of something nested."""
    if isinstance(value, dict | list | tuple):
        yield f"{place}: {type(value).__name__} of {len(value)}"
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from [f"{place}/{key}: <number>"] if key in _MEASURED else _values(inner, f"{place}/{key}")
    elif hasattr(value, "detach"):
        digest = hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()
        yield f"{place}: {value.dtype} {list(value.shape)} {digest}"
    else:
        yield f"{place}: {value!r}"


# Comparing ------------------------------------------------------------------------------------------------------------


def compare(one: Manifest, other: Manifest) -> int:
    """Prints what differs, and how many files there are and how many are equal; 1 where anything differs."""
    left, right = ({f"{case}/{file}": e for case, own in m.items() for file, e in own.items()} for m in (one, other))
    both = [name for name in left if name in right]
    lines = [f"differs: {name}: {_what(name, left[name], right[name])}" for name in both if left[name] != right[name]]
    equal = len(both) - len(lines)
    lines += [f"only in the first: {name}" for name in left if name not in right]
    lines += [f"only in the second: {name}" for name in right if name not in left]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.write(f"{len(left | right)} files compared, {equal} equal, {len(lines)} not\n")
    return int(bool(lines))


def _what(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if "content" not in one or "content" not in other:
        return "other bytes" if one.keys() == other.keys() else "kept in another form"
    left, right = one["content"], other["content"]
    if name.endswith(".json"):
        with contextlib.suppress(ValueError):
            left, right = [list(_values(json.loads("\n".join(lines)), "")) for lines in (left, right)]
    if left == right:
        return "the same values in another layout"
    at = len(os.path.commonprefix([left, right]))
    shown = [repr(lines[at][:150]) if at < len(lines) else "its end" for lines in (left, right)]
    count = sum(a != b for a, b in zip(left, right, strict=False)) + abs(len(left) - len(right))
    return f"line {at + 1} of {len(left)}, {len(right)}: {shown[0]} -> {shown[1]}; {count} in all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Records or compares; 1 where two manifests differ."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run everything in a checkout")
    recording.add_argument("tree", type=Path)
    recording.add_argument("manifest", type=Path)
    recording.add_argument("--work", type=Path, default=Path("/tmp/freeze"), help="wiped; the same for both trees")
    recording.add_argument("--only", default="", help=f"cases, ',' between them, of {', '.join(_CASES)}")
    recording.add_argument("--fresh", action="store_true", help="a new interpreter for every run")
    comparing = commands.add_parser("compare", help="what two manifests differ in")
    comparing.add_argument("manifests", type=Path, nargs=2)
    chosen = parser.parse_args(arguments)
    if chosen.command == "compare":
        return compare(*(json.loads(path.read_text("utf-8")) for path in chosen.manifests))
    only = [name for name in chosen.only.split(",") if name]
    found = record(chosen.tree, chosen.work, only=only, fresh=chosen.fresh)
    chosen.manifest.parent.mkdir(parents=True, exist_ok=True)
    chosen.manifest.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
