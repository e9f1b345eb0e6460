"""`run_zeroshot.py` from end to end, on real files."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.barcode import write_video
from support.cholec80_tree import write_copy
from support.models_factory import tiny_ms_xclip, tiny_two_tower

import run_zeroshot
from xclip_module.models import save_model
from xclip_module.models.demo_model import write_demo_model
from xclip_module.run.launch import launch

ROOT = Path(__file__).parents[2]
# 40 of the 48 videos that Cholec80's val and test would have are not in a small copy.
LENIENT = ["--data.name=cholec80", "--data.skip_unreadable=true", "--model.weights=untrained:data/demo/model"]
LENIENT += ["--eval.bootstrap=50"]
CLIPS = ["--data.clip_seconds=4", "--data.stride_seconds=2"]


def start(*arguments, root, name="x", **options):
    command = [sys.executable, "run_zeroshot.py", f"--run.root={root}", f"--run.name={name}", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def run(*arguments, root, name="x", **options):
    process = start(*arguments, root=root, name=name, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err


def outcome(folder):
    return {name: (folder / name).read_bytes() for name in ("scores.npz", "moments.jsonl", "metrics.json")}


@pytest.fixture
def run_here(start, one_thread):
    """Like `run`, in this process: a process of its own imports for five seconds."""
    return lambda *arguments, name="x": start(run_zeroshot.main, *arguments, name=name)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_copy(tmp_path_factory.mktemp("cholec80"), [1, 33, 41, 42, 43], seconds=20)


@pytest.fixture(scope="module")
def finished(copy, tmp_path_factory):
    """A whole run over the copy, and its folder."""
    root = tmp_path_factory.mktemp("runs")
    code, text = run(*LENIENT, *CLIPS, f"--data.root={copy}", root=root)
    assert code == 0, text
    return root / "x", text


def test_the_shipped_config_finds_the_phases_of_unseen_demo_videos(tmp_path):
    code, text = run(root=tmp_path, name="demo")
    assert code == 0, text
    folder = tmp_path / "demo"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {split: result["videos"] for split, result in metrics["splits"].items()} == {"val": 3, "test": 3}
    val = metrics["splits"]["val"]
    assert val["macro"]["AUROC"] >= 0.90
    assert val["macro"]["mAP@0.5"] > 1.3 * val["controls"]["train mean"]["mAP@0.5"]
    assert metrics["splits"]["test"]["macro"]["AUROC"] > metrics["splits"]["test"]["controls"]["time prior"]["AUROC"]
    report = (folder / "report.md").read_text()
    for word in ("prevalence", "packages.torch", "settings.clip_seconds", "split "):
        assert word in report
    assert len(list((folder / "pictures").glob("ribbon_*.svg"))) == 6


def test_random_weights_score_chance_and_say_so(tmp_path):
    code, text = run(
        "--model.weights=untrained:data/demo/model",
        "--eval.bootstrap=0",
        "--data.evaluate=val",
        root=tmp_path,
        name="demo",
    )
    assert code == 0, text
    assert "expect chance" in text
    folder = tmp_path / "demo"
    metrics = json.loads((folder / "metrics.json").read_text())
    for result in metrics["splits"].values():
        assert 0.35 < result["macro"]["AUROC"] < 0.65
        assert result["controls"]["time prior"]["AUROC"] > 0.65
    report = (folder / "report.md").read_text()
    assert "untrained (random): expect chance" in report
    assert "does not beat the time prior" in report
    assert "expect chance" in (folder / "report.html").read_text()


def test_scores_moments_and_metrics_have_the_promised_shape(finished):
    folder, _ = finished
    archive = np.load(folder / "scores.npz")
    assert archive["videos"].tolist() == ["video33", "video41", "video42", "video43"]
    assert len(archive["queries"]) == len(archive["names"]) == 14
    assert archive["video41/times"].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert archive["video41/scores"].shape == (14, 10)
    lines = [json.loads(line) for line in (folder / "moments.jsonl").read_text().splitlines()]
    assert [line["qid"] for line in lines] == list(range(4 * 14))
    for line in lines:
        assert {"query", "vid", "duration", "relevant_windows"} <= set(line)
        assert all(0 <= a < b <= line["duration"] for a, b, _ in line["pred_relevant_windows"])
    metrics = json.loads((folder / "metrics.json").read_text())
    row = metrics["splits"]["test"]["queries"]["Preparation"]
    assert {"AUROC", "AUPRC", "prevalence", "lift", "mAP@0.5", "pair_mAP@0.5", "R1@0.5", "mIoU", "pairs"} <= set(row)
    assert metrics["splits"]["test"]["queries"]["Clipper"]["AUROC"] is None
    assert "split" in metrics["protocol"]["data"]


def test_skipped_videos_are_counted_and_named(finished):
    folder, _ = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(metrics["splits"]["test"]["skipped"]) == 37
    assert metrics["splits"]["val"]["skipped"]["video34"] == "no labels"
    assert "37 videos left out" in (folder / "report.md").read_text()


def test_other_queries_clips_and_strides_cost_no_decoding(finished, copy, tmp_path):
    """With the videos' content gone but their identity kept, only a run that reads nothing can succeed."""
    folder, _ = finished
    times = {}
    for video in (copy / "videos").iterdir():
        times[video] = (video.stat(), video.read_bytes())
        video.write_bytes(bytes(times[video][0].st_size))
        os.utime(video, ns=(times[video][0].st_atime_ns, times[video][0].st_mtime_ns))
    try:
        arguments = [*LENIENT, f"--data.root={copy}", f"--data.features={folder.parent / 'features'}"]
        code, text = run(*arguments, *CLIPS[:1], "--data.stride_seconds=1", "--data.queries=a clip", root=tmp_path)
        assert code == 0, text
        code, text = run(*arguments, "--data.clip_seconds=8", root=tmp_path, name="other")
        assert code == 3  # half the frame rate: other frames, which are not there
    finally:
        for video, (stat, content) in times.items():
            video.write_bytes(content)
            os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert np.load(tmp_path / "x" / "scores.npz")["video41/scores"].shape == (1, 20)


def test_two_processes_give_the_very_files_of_one(finished, copy, tmp_path):
    folder, _ = finished
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "run_zeroshot.py"]
    arguments = [*LENIENT, *CLIPS, f"--data.root={copy}", f"--run.root={tmp_path}", "--run.name=x"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "x") == outcome(folder)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_cut_anywhere_ends_the_same_when_started_again(finished, copy, tmp_path, kind):
    folder, _ = finished
    rng = random.Random(int(kind))
    arguments = [*LENIENT, *CLIPS, f"--data.root={copy}"]
    for _ in range(3):
        process = start(*arguments, root=tmp_path)
        process.stderr.readline()  # the first line of the run: all is imported
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=rng.uniform(0.0, 3.0))
        process.send_signal(kind)
        _, err = process.communicate(timeout=60)
        if kind == signal.SIGTERM and process.returncode == 75:
            assert "error: stopped by SIGTERM" in err
    code, text = run(*arguments, root=tmp_path)
    assert code == 0, text
    assert outcome(tmp_path / "x") == outcome(folder)


def test_ones_own_recording_prints_the_best_moments_and_writes_the_curve(copy, run_here, tmp_path):
    video = copy / "videos" / "video41.mp4"
    code, text = run_here(
        f"--data.video={video}", *CLIPS, "--data.queries=a clip applier closes the cystic duct; a bag"
    )
    assert code == 0, text
    assert "“a clip applier closes the cystic duct”" in text
    assert "video41  00:" in text
    assert np.load(tmp_path / "runs" / "x" / "scores.npz")["video41/scores"].shape == (2, 10)
    assert "“a bag”" in (tmp_path / "runs" / "x" / "report.md").read_text()
    assert json.loads((tmp_path / "runs" / "x" / "metrics.json").read_text())["splits"] == {}


def test_a_list_of_moments_over_a_folder_is_evaluated(copy, run_here, tmp_path):
    rows = ["video41,a clip,100,200,25", "video42,a clip,0,50,25", "video42,a bag,50,99,25"]
    (tmp_path / "m.csv").write_text("\n".join(["video_id,text,start_frame,end_frame,fps", *rows]) + "\n")
    arguments = ["--data.name=moments", f"--data.root={copy / 'videos'}", f"--data.annotations={tmp_path / 'm.csv'}"]
    code, text = run_here(*arguments, *CLIPS)
    assert code == 0, text
    result = json.loads((tmp_path / "runs" / "x" / "metrics.json").read_text())["splits"]["all"]
    assert (result["queries"]["a clip"]["pairs"], result["queries"]["a bag"]["pairs"]) == (2, 1)


def test_ms_xclip_encodes_each_window_once_and_a_second_run_nothing(copy, run_here, tmp_path):
    vocabulary = write_demo_model(tmp_path / "tokenizer", ["a clip"]).vocabulary
    tiny_ms_xclip(vocabulary).save_pretrained(tmp_path / "model")
    arguments = [*LENIENT, *CLIPS, f"--data.root={copy}", f"--model.weights={tmp_path / 'model'}"]
    arguments += [f"--model.tokenizer={tmp_path / 'tokenizer'}", "--data.queries=a clip;a bag"]
    code, text = run_here(*arguments)
    assert code == 0, text
    assert "ms-xclip (Ni et al. 2022), 4 frames" in (tmp_path / "runs" / "x" / "report.md").read_text()
    stored = sorted((tmp_path / "runs" / "features").iterdir())
    assert load_file(stored[-1])["pooled"].shape == (10, 64)
    before = [path.stat().st_mtime_ns for path in stored]
    code, text = run_here(*arguments, name="again")
    assert code == 0, text
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "runs" / "features").iterdir())] == before
    assert outcome(tmp_path / "runs" / "again") == outcome(tmp_path / "runs" / "x")


def test_a_tokenizer_of_other_weights_is_refused(copy, run_here, tmp_path):
    write_demo_model(tmp_path / "tokenizer", ["a clip"])
    tiny_ms_xclip(vocabulary=100).save_pretrained(tmp_path / "model")
    arguments = [f"--data.video={copy / 'videos' / 'video41.mp4'}", "--data.queries=a", *CLIPS]
    arguments += [f"--model.weights={tmp_path / 'model'}", f"--model.tokenizer={tmp_path / 'tokenizer'}"]
    code, text = run_here(*arguments)
    assert code == 4
    assert "error: tokenizer and weights do not fit" in text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A trained-like xclip folder of ours with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = write_demo_model(folder, ["a clip closes the duct"]).vocabulary
    save_model(tiny_two_tower(vocabulary=vocabulary, frames=4, words=16), folder)
    return folder


def test_our_own_checkpoint_runs_from_its_folder(copy, model, run_here, tmp_path):
    code, text = run_here(*LENIENT, *CLIPS, f"--data.root={copy}", f"--model.weights={model}")
    assert code == 0, text
    assert "untrained" not in (tmp_path / "runs" / "x" / "report.md").read_text()
    (path,) = (tmp_path / "runs" / "features").glob("video41-*")
    assert load_file(path)["features"].shape == (20, 64)


def test_a_query_that_is_too_long_is_warned_about_with_what_was_cut(copy, model, run_here, tmp_path):
    long = "a clip closes the duct " * 6
    arguments = [f"--data.video={copy / 'videos' / 'video41.mp4'}", *CLIPS, f"--data.queries={long}"]
    code, text = run_here(*arguments, f"--model.weights={model}")
    assert code == 0, text
    assert "too long for 16 tokens" in text
    assert "“the duct a clip closes" in text or "left out at its end: “" in text


def bad_inputs(tmp_path, copy):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.pt").write_bytes(b"\0" * 500)
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 5000)
    write_video(tmp_path / "short.mp4", frames=25)
    root = [f"--data.root={copy}"]
    own = [f"--data.video={copy / 'videos' / 'video41.mp4'}", *CLIPS]
    return [
        (["--data.rot=x"], 2, "unknown config key data.rot: did you mean data.root?"),
        (["--data.stride_seconds=four"], 2, "expected a number"),
        (["--protocol=cholec80"], 2, "unknown protocol cholec80"),
        ([*LENIENT, "--data.root=nowhere"], 3, "data root not found: nowhere"),
        ([*LENIENT, f"--data.root={tmp_path / 'empty'}"], 3, "no video found"),
        (["--data.name=cholec80", *root], 3, "44 videos missing"),
        (["--data.video=nowhere.mp4", "--data.queries=a"], 3, "no such video: nowhere.mp4"),
        ([f"--data.video={tmp_path / 'broken.mp4'}", "--data.queries=a"], 3, "broken.mp4"),
        ([f"--data.video={tmp_path / 'short.mp4'}", *CLIPS, "--data.queries=a"], 3, "shorter than one clip"),
        ([*own, "--data.queries="], 2, "empty query"),
        ([*own, "--data.queries=a;;b"], 2, "empty query: sentence 2 of 3"),
        ([*own, "--data.queries=a", "--model.weights=nowhere.pt"], 4, "no such checkpoint: nowhere.pt"),
        ([*own, "--data.queries=a", f"--model.weights={tmp_path / 'broken.pt'}"], 4, "unreadable checkpoint"),
        ([*own, "--data.queries=a", "--model.weights=openai/clip-vit-base-patch32"], 4, "hf download"),
        ([*own, "--data.queries=a", "--data.frames_per_clip=7"], 2, "takes exactly 4 frames a clip"),
    ]


def test_bad_input_is_one_clear_line_and_a_documented_exit_code(copy, tmp_path, capsys, monkeypatch):
    """In one process, through the very launcher of the script: fifteen starts would take minutes."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, (arguments, code, message) in enumerate(bad_inputs(tmp_path, copy)):
        place = [f"--run.root={tmp_path / 'runs'}", f"--run.name={number}"]
        with pytest.raises(SystemExit) as ended:
            launch(run_zeroshot.main, script=str(ROOT / "run_zeroshot.py"), arguments=[*place, *arguments])
        text = capsys.readouterr().err
        assert ended.value.code == code, (arguments, text)
        (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert message in line
        assert "Traceback" not in text
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_full_disk_ends_with_5_and_the_next_start_goes_on(finished, copy, tmp_path):
    folder, _ = finished
    arguments = [*LENIENT, *CLIPS, f"--data.root={copy}"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))  # noqa: E731 (a function for the child)
    code, text = run(*arguments, root=tmp_path, preexec_fn=limit)
    assert code == 5, text
    assert "error: cannot write" in text
    code, text = run(*arguments, root=tmp_path)
    assert code == 0, text
    assert outcome(tmp_path / "x") == outcome(folder)
