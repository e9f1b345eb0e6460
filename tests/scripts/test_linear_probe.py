"""run_linear_probe.py from end to end on real files, and its head in run_zeroshot.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.barcode import write_video
from support.models_factory import tiny_ms_xclip
from support.small_finetune import write_project

import run_finetune
import run_linear_probe
import run_zeroshot
from xclip_module.check import check_probe, check_zeroshot
from xclip_module.models.demo_model import write_demo_model
from xclip_module.models.head import load_head
from xclip_module.probe import fit as probe_fit
from xclip_module.run.launch import launch

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
RESULTS = ("scores.npz", "moments.jsonl", "head.safetensors")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Train videos 1 and 2, val 7, test 10, and random weights."""
    words = write_project(tmp_path_factory.mktemp("project"))
    return [word for word in words if not word.startswith("--finetune")]


def run(script, *arguments, root, name, launcher=()):
    command = [sys.executable, *launcher, script, f"--run.root={root}", f"--run.name={name}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def results(folder):
    found = {name: (folder / name).read_bytes() for name in RESULTS}
    numbers = metrics_of(folder)
    numbers["probe"].pop("seconds")
    for part in [numbers["probe"]["temporal"] or {}]:
        part.pop("seconds", None)
    return found, numbers


def test_the_demo_beats_its_controls_and_its_head_scores_the_same_in_run_zeroshot(start, tmp_path):
    code, text = start(run_linear_probe.main, "--eval.bootstrap=100", name="probe")
    assert code == 0, text
    folder = tmp_path / "runs" / "probe"
    metrics = metrics_of(folder)
    val, test = metrics["splits"]["val"], metrics["splits"]["test"]
    assert val["macro"]["AUROC"] >= 0.95
    for result in (val, test):
        beaten = [name for name, row in result["controls"].items() if row["AUROC"] < result["macro"]["AUROC"]]
        assert beaten == ["random", "whole video", "train mean", "time prior"]
    assert "val: AUROC beats random, whole video, train mean, time prior; not oracle" in text
    page = (folder / "report.html").read_text()
    assert "Linear probe" in page
    assert (folder / "pictures" / "probe_sweep.svg").is_file()
    head = f"--model.head={folder / 'head.safetensors'}"
    run("run_zeroshot.py", head, "--eval.bootstrap=100", root=tmp_path / "runs", name="again")
    for name in ("scores.npz", "moments.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "runs" / "again" / name).read_bytes()
    assert metrics_of(tmp_path / "runs" / "again")["splits"] == metrics["splits"]


@pytest.fixture
def probed(start, arguments, tmp_path):
    """Runs the probe in this process; gives code, what was printed, and the run's folder."""

    def call(*more, name="x", main=run_linear_probe.main, **options):
        code, text = start(main, *arguments, *more, name=name, **options)
        return code, text, tmp_path / "runs" / name

    return call


def test_a_sweep_cut_anywhere_goes_on_to_the_same_bits(probed, monkeypatch):
    more = ["--probe.temporal=tcn", "--probe.temporal_epochs=2", "--probe.shots=1", "--probe.draws=2"]
    assert probed(*more, name="whole")[0] == 0
    whole = results(probed(*more, name="whole")[2])
    count = [0]
    really = probe_fit.fit

    def cut(limit):
        def fit(*arguments, **options):
            count[0] += 1
            if count[0] == limit:
                raise KeyboardInterrupt("SIGTERM")
            return really(*arguments, **options)

        return fit

    for limit in (4, 20, 30, 10**6):
        count[0] = 0
        monkeypatch.setattr(probe_fit, "fit", cut(limit))
        code, text, folder = probed(*more, name="cut")
        assert code == (0 if limit == 10**6 else 75), text
    assert results(folder) == whole
    # Of each kind at most 15 fits, for the run and for each draw: the last start made only what was left.
    assert count[0] == len(list((folder / "fits").glob("*"))) - 3 - 19 - 29 > 0


def test_two_ranks_leave_the_files_of_one(arguments, probed, tmp_path):
    code, text, folder = probed("--probe.penalty=1", name="one")
    assert code == 0, text
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run("run_linear_probe.py", *arguments, "--probe.penalty=1", root=tmp_path / "b", name="one", launcher=launcher)
    assert results(folder) == results(tmp_path / "b" / "one")


def test_the_head_names_its_classes_features_and_configuration(probed, arguments):
    code, text, folder = probed("--probe.penalty=2", "--probe.features=frame")
    assert code == 0, text
    head = load_head(folder / "head.safetensors")
    assert [query.name for query in head.queries][:2] == ["Preparation", "CalotTriangleDissection"]
    known = dict(zip([query.name for query in head.queries], head.known.tolist(), strict=True))
    assert {name for name, is_known in known.items() if is_known} == {
        *("Preparation", "CalotTriangleDissection", "GallbladderDissection", "Hook")
    }
    assert head.source["features"] == "frame"
    assert head.made["config"]["probe.penalty"] == 2.0
    assert "nothing to learn of ClippingCutting" in text


@pytest.mark.parametrize(
    ("flag", "difference"),
    [("--data.clip_seconds=6", "clip_seconds 4.0, here 6.0"), ("--data.crop=pad", "crop center, here pad")],
)
def test_a_head_for_other_features_is_refused(probed, flag, difference):
    head = probed("--probe.penalty=1", name="made")[2] / "head.safetensors"
    code, text, _ = probed(f"--model.head={head}", flag, main=run_zeroshot.main, name="other")
    assert code == 4
    assert f"this head is for other features: {head}: {difference}" in text


def test_a_head_finds_its_classes_in_ones_own_recording(probed, tmp_path):
    folder = probed("--probe.penalty=1", "--probe.temporal=causal-tcn", "--probe.temporal_epochs=2", name="made")[2]
    video = write_video(tmp_path / "own.mp4", frames=200)
    own = [f"--model.head={folder / 'head.safetensors'}", f"--data.video={video}"]
    code, text, run_folder = probed(*own, main=run_zeroshot.main, name="own")
    assert code == 0, text
    with np.load(run_folder / "scores.npz") as scores:
        assert scores["own/scores"].shape == (14, 8)
        assert scores["names"][0] == "Preparation"
    some = [*own, "--data.queries=Hook; Bipolar", "--eval.track=+temporal"]
    code, text, run_folder = probed(*some, main=run_zeroshot.main, name="some")
    assert code == 0, text
    with np.load(run_folder / "scores.npz") as scores:
        assert scores["names"].tolist() == ["Hook", "Bipolar"]
    code, text, _ = probed(*own, "--data.queries=Hoook", main=run_zeroshot.main, name="none")
    assert (code, "did you mean Hook?" in text) == (2, True)


def test_ms_xclip_is_probed_by_its_video_embedding(start, arguments, tmp_path):
    vocabulary = write_demo_model(tmp_path / "ms", ["a clip closes the duct"]).vocabulary
    tiny_ms_xclip(vocabulary).save_pretrained(tmp_path / "ms")
    words = [word for word in arguments if not word.startswith("--model.weights")]
    words += [f"--model.weights={tmp_path / 'ms'}", "--probe.penalty=1"]
    code, text = start(run_linear_probe.main, *words)
    assert code == 0, text
    assert load_head(tmp_path / "runs" / "x" / "head.safetensors").source["features"] == "video"
    code, text = start(run_linear_probe.main, *words, "--probe.features=window", name="y")
    assert (code, "has video; try: --probe.features=video" in text) == (2, True)


def test_sentences_of_a_list_with_splits_get_a_head_each(start, arguments, tmp_path):
    root = next(Path(word.removeprefix("--data.root=")) for word in arguments if word.startswith("--data.root="))
    lines = [
        ("video01", 2, 9, "train"),
        ("video02", 3, 8, "train"),
        ("video07", 2, 8, "val"),
        ("video10", 4, 9, "test"),
    ]
    rows = [
        f"{video},{text},{a + shift},{b + shift},{split}" for video, a, b, split in lines for text, shift in QUERIES
    ]
    (tmp_path / "list.csv").write_text("\n".join(["video,query,start_time,end_time,split", *rows]) + "\n")
    words = [word for word in arguments if not word.startswith("--data.")]
    words += ["--data.name=moments", f"--data.root={root / 'videos'}", f"--data.annotations={tmp_path / 'list.csv'}"]
    code, text = start(run_linear_probe.main, *words, "--data.clip_seconds=4", "--data.stride_seconds=1")
    assert code == 0, text
    metrics = metrics_of(tmp_path / "runs" / "x")
    assert list(metrics["splits"]) == ["val", "test"]
    assert [head["form"] for head in metrics["probe"]["heads"]] == ["2 sigmoids, one a sentence"]
    # The pictures count up, so that a moment is where it is in every video: even random features know it.
    assert metrics["splits"]["test"]["macro"]["AUROC"] > 0.8


QUERIES = (("the left bar", 0), ("the right bar", 10))


def test_few_shot_draws_stand_in_the_report_with_their_videos(probed):
    code, text, folder = probed("--probe.shots=1,2", "--probe.draws=3", "--probe.penalty=1", "--eval.bootstrap=0")
    assert code == 0, text
    rows = metrics_of(folder)["probe"]["few_shot"]["rows"]
    assert [(row["shots"], row["draw"]) for row in rows] == [(1, 0), (1, 1), (2, 0)]
    assert all(set(row["videos"]) <= {"video01", "video02"} and len(row["videos"]) == row["shots"] for row in rows)
    macro = metrics_of(folder)["splits"]["test"]["macro"]
    for name in ("AUROC", "AUPRC", "mAP@0.5"):  # all training videos: the head of the run itself
        assert rows[-1]["splits"]["test"][name] == pytest.approx(macro[name], abs=1e-6)
    assert "training videos" in (folder / "pictures" / "learning_curve.svg").read_text()


def test_val_is_not_scored_once_it_was_learned_from(probed):
    code, text, folder = probed("--probe.refit=train+val", "--probe.penalty=1")
    assert code == 0, text
    metrics = metrics_of(folder)
    assert list(metrics["splits"]) == ["test"]
    assert "refitted with val" in metrics["protocol"]["head"]


def test_the_check_tries_everything_and_leaves_no_head(probed):
    code, text, folder = probed("--check", check=check_probe)
    assert code == 0, text
    assert "forecast:" in text
    assert not list(folder.parent.rglob("head.safetensors"))


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--probe.shots=3"], 2, "probe.shots=3: there are 2 training videos"),
        (["--probe.features=temporal"], 2, "probe.features=temporal"),
        (["--probe.shots=1,x"], 2, "expected whole numbers with ',' between them"),
        (["--eval.track=+temporal"], 2, "eval.track=+temporal"),
        (["--eval.background=ours"], 2, "eval.background"),
        (["--model.head=x.safetensors"], 2, "model.head: this script trains one"),
        (["--data.video=a.mp4"], 2, "own recordings have no labels"),
        (["--probe.refit=train+val", "--data.evaluate=val"], 2, "nothing is left to score"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(probed, flags, code, message):
    found, text, _ = probed(*flags)
    assert (found, message in text) == (code, True), text


def test_without_a_val_video_the_penalty_must_be_given(start, tmp_path):
    words = [word for word in write_project(tmp_path / "p", seconds=12) if not word.startswith("--finetune")]
    for path in (tmp_path / "p" / "copy").rglob("video07*"):
        path.unlink()
    code, text = start(run_linear_probe.main, *words)
    assert (code, "there is no val video to choose one on; try: --probe.penalty=100" in text) == (2, True), text
    code, text = start(run_linear_probe.main, *words, "--probe.penalty=100", "--data.evaluate=test", name="y")
    assert code == 0, text


def test_features_that_are_not_finite_are_one_line_that_names_the_video(probed, monkeypatch):
    from xclip_module.features import scoring

    monkeypatch.setattr(scoring, "_unit", lambda vectors: vectors * torch.nan)
    code, text, _ = probed("--probe.penalty=1")
    assert (code, "features are not finite: video01: NaN or infinity in 20 of 20 windows" in text) == (8, True), text


def test_a_network_is_never_served_to_other_standardised_features(probed):
    more = ["--probe.penalty=1", "--probe.temporal=tcn", "--probe.temporal_epochs=1"]
    assert probed(*more, name="one")[0] == 0
    again = probed(*more, "--probe.refit=train+val", name="one")[2]
    fresh = probed(*more, "--probe.refit=train+val", name="two")[2]
    assert results(again) == results(fresh)
    assert (again / "replaced-1" / "head.safetensors").is_file()


def test_another_script_of_the_same_name_sets_the_results_aside(arguments, tmp_path, capsys):
    for script, module in (("run_linear_probe.py", run_linear_probe), ("run_zeroshot.py", run_zeroshot)):
        words = [
            f"--run.root={tmp_path}",
            "--run.name=x",
            *arguments,
            *(["--probe.penalty=1"] * (module is run_linear_probe)),
        ]
        with pytest.raises(SystemExit) as ended:
            launch(module.main, script=str(tmp_path / script), arguments=words)
        assert not ended.value.code, capsys.readouterr().err
    assert (tmp_path / "x" / "replaced-1" / "head.safetensors").is_file()
    assert not (tmp_path / "x" / "head.safetensors").exists()


def test_the_check_of_run_zeroshot_knows_heads(probed, tmp_path):
    head = probed("--probe.penalty=1", "--probe.temporal=tcn", "--probe.temporal_epochs=1", name="made")[2]
    flags = [f"--model.head={head / 'head.safetensors'}", "--eval.track=+temporal"]
    code, text, _ = probed("--check", *flags, main=run_zeroshot.main, check=check_zeroshot)
    assert (code, "forecast:" in text) == (0, True), text
    code, text, _ = probed(*flags[:1], main=run_finetune.main, name="y")
    assert (code, "model.head: training changes the features" in text) == (2, True), text


def test_without_a_readable_training_video_it_ends_with_3(start, tmp_path):
    words = [word for word in write_project(tmp_path / "p", seconds=12) if not word.startswith("--finetune")]
    for number in (1, 2):
        (tmp_path / "p" / "copy" / "videos" / f"video0{number}.mp4").write_bytes(b"no video")
    code, text = start(run_linear_probe.main, *words, "--probe.penalty=1")
    assert (code, "no training video could be read" in text) == (3, True), text
    code, text = start(run_linear_probe.main, *words, "--check", check=check_probe, name="y")
    assert (code, "no training video could be read" in text) == (3, True), text
