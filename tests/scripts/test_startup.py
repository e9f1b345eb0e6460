"""What can be answered without torch is answered without importing it, whose silence lasts seconds."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("run_zeroshot.py", "run_linear_probe.py", "run_finetune.py")
HEAVY = {"torch", "torchvision", "transformers", "matplotlib", "sklearn", "pandas"}
# What -X importtime prints for each module that is imported.
IMPORT = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)\n", re.MULTILINE)


def answer(script, *words, root):
    """Exit code, output and packages of a script, with the lines of its imports among those of stderr."""
    command = [sys.executable, "-X", "importtime", script, *words, f"--run.root={root}"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    packages = {name.split(".")[0] for name in IMPORT.findall(process.stderr)}
    assert "xclip_module" in packages
    return process.returncode, process.stdout, process.stderr, packages


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--help"], 0, "--data.root="),
        (["--data.rot=x"], 2, "did you mean data.root?"),
        (["--data.crop=no"], 2, "config key data.crop: found 'no'"),
        (["--protocol=cholec80_xclip"], 2, "did you mean cholec80_xclip_vitb32?"),
        (["--data.root=/nope"], 3, "data root not found: /nope"),
        (["--data.name=msrvtt-9k", "--data.root=/nope"], (2, 3), "/nope|text-video retrieval"),
        (["--data.name=moments", "--data.annotations=nope"], 3, "no such annotation file: nope"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_answers_without_torch(script, words, code, message, tmp_path):
    ended, out, err, packages = answer(script, *words, root=tmp_path)
    assert ended == code or ended in (code if isinstance(code, tuple) else ())
    assert message in out or re.search(message.replace("?", r"\?"), err)
    assert not packages & HEAVY


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.video=nope.mp4", "--data.queries=a hook"], "no such video: nope.mp4"),
        (["--model.head=nope.safetensors"], "no such head: nope.safetensors"),
    ],
    ids=("video", "head"),
)
def test_a_file_that_only_scoring_takes_is_missed_without_torch(words, message, tmp_path):
    _, _, err, packages = answer("run_zeroshot.py", *words, root=tmp_path)
    assert f"error: {message}" in err
    assert not packages & HEAVY


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_weights_are_missed_without_torch(script, tmp_path):
    """Labels come first, which pandas reads."""
    code, _, err, packages = answer(script, "--model.weights=nope.pt", root=tmp_path)
    assert code == 4
    assert "error: no such checkpoint: nope.pt" in err
    assert not packages & (HEAVY - {"pandas"})


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_loaded_is_said_before_the_silence(script, tmp_path):
    (tmp_path / "broken.pt").write_text("no weights")
    code, _, err, packages = answer(script, f"--model.weights={tmp_path / 'broken.pt'}", root=tmp_path)
    assert code == 4
    assert "torch" in packages
    assert err.index(f"loading weights {tmp_path / 'broken.pt'}\n") < re.search(r"\| +torch\.", err).start()


def test_stopped_while_libraries_are_imported_it_ends_with_one_line(tmp_path):
    command = [sys.executable, "run_zeroshot.py", f"--run.root={tmp_path}", "--run.device=cpu"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("loading weights"):
            pass
        process.send_signal(signal.SIGINT)
        text = process.stderr.read()
    assert process.returncode == 75
    assert text.startswith("error: stopped by SIGINT")
    assert text.count("\n") == 1
