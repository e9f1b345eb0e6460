"""What users get wrong: one line that names it, the documented exit code, and nothing lost or silently dropped."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.cholec80_tree import write_copy
from support.models_factory import tiny_two_tower

from xclip_module.config import Config, DataConfig, EvalConfig, ModelConfig, resolve
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.datasets.cholec80.corpus import load_cholec80
from xclip_module.datasets.cholec80.layout import find_layout
from xclip_module.errors import ConfigError, DataError, DiskError, UserError
from xclip_module.features.store import FeatureStore
from xclip_module.interface import Corpus, Missing, Query, Video
from xclip_module.models import save_model
from xclip_module.run import distributed
from xclip_module.run import launch as launcher
from xclip_module.run.distributed import World
from xclip_module.tasks.localisation import score as scoring
from xclip_module.tasks.localisation.load import load, scored_splits
from xclip_module.tasks.weights import build_model

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def script(tmp_path, body, *arguments, code=None, **options):
    """Starts a script of its own whose main function has this body; `code` stands before it."""
    text = f"import os, signal, sys, threading, time\nfrom xclip_module.run.launch import launch\n{code or ''}\n"
    text += f"def main(config, run):\n    {body}\nif __name__ == '__main__':\n    launch(main, script=__file__)\n"
    (tmp_path / "run_test.py").write_text(text)
    command = [sys.executable, str(tmp_path / "run_test.py"), f"--run.root={tmp_path / 'runs'}", "--run.name=x"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen(
        [*command, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options
    )


def corpus(videos, missing=()):
    return Corpus(
        name="cholec80",
        videos=tuple(Video(name, Path(f"{name}.mp4"), split) for name, split in videos),
        queries=(Query("Hook", "a hook", "tool"),),
        moments={},
        protocol="",
        missing=tuple(Missing(*names, "no video") for names in missing),
    )


# Splits


def evaluating(*splits):
    return DataConfig(evaluate=splits)


def test_an_unknown_split_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"data.evaluate: found 'tset', expected one of .*did you mean test\?"):
        resolve(Config(), arguments={"data.evaluate": "val,tset"})


def test_all_is_no_split_of_a_data_set_with_splits():
    with pytest.raises(ConfigError, match="data.evaluate=all: cholec80 has splits"):
        scored_splits(evaluating("all", "test"), corpus([("a", "test")]))


def test_a_split_named_twice_is_scored_once():
    assert scored_splits(evaluating("val", "val", "test"), corpus([("a", "test"), ("b", "val")])) == (
        "val",
        "test",
    )


def test_a_split_whose_videos_are_all_missing_stays_in_the_results():
    partial = corpus([("a", "test")], [("b", "val")])
    assert scored_splits(evaluating("val", "test"), partial) == ("val", "test")


def test_the_default_splits_fit_a_data_set_without_val():
    assert scored_splits(evaluating("val", "test"), corpus([("a", "train"), ("b", "test")])) == ("test",)


# Data


def test_a_video_without_its_tool_file_and_missing_videos_are_said_in_the_log(tmp_path, caplog):
    root = write_copy(tmp_path, [41, 42], seconds=3)
    (root / "tool_annotations" / "video42-tool.txt").unlink()
    incomplete = load_cholec80(DataConfig(name="cholec80", root=str(root), evaluate=("test",), skip_unreadable=True))
    with caplog.at_level(logging.WARNING):
        scoring._warn_of_gaps(incomplete, incomplete.of_split("test"))
    assert "scored without tool labels, there is no such file: video42" in caplog.text
    assert "phase labels" not in caplog.text
    assert "left out, no labels: video43, video44" in caplog.text


def test_a_link_that_leads_back_up_shows_no_file_twice(tmp_path):
    root = write_copy(tmp_path / "a", [41], seconds=3)
    (root / "videos" / "loop").symlink_to("..")
    assert list(find_layout(root).videos) == [41]


def test_a_file_name_that_is_no_text_is_one_line(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "caf\udce9.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match=r"file name is no UTF-8 text: .*caf\\udce9.mp4; try: rename it"):
        load_corpus(DataConfig(video=str(folder), queries="a"))


@pytest.mark.parametrize("key", ["root", "video", "annotations"])
def test_a_path_that_the_system_refuses_is_one_line(key):
    name = "moments" if key == "annotations" else "cholec80"
    data = DataConfig(**{"name": name, "queries": "a", key: "x" * 5000})
    with pytest.raises(DataError, match="File name too long") as caught:
        load_corpus(data)
    assert caught.value.exit_code == 3


def test_an_argument_that_is_no_text_is_one_line(start):
    code, text = start(lambda config, run: None, "--data.root=caf\udce9")
    assert code == 2
    assert text.startswith(r"error: --data.root=caf\udce9: it is no UTF-8 text")


# Values and device


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("data.decode_timeout_seconds", "inf", "expected a finite number"),
        ("data.clip_seconds", "inf", "expected a finite number"),
        ("data.frame_fps", "inf", "expected a finite number"),
        ("data.stride_seconds", "1e-7", "expected at least 0.01"),
        ("data.clip_seconds", "1e-7", "expected at least 0.01"),
        ("eval.smooth_seconds", "1e12", "expected at most 100000.0"),
        ("run.seed", "9223372036854775808", "expected at most 9223372036854775807"),
        ("model.max_words", "1", "expected at least 3"),
    ],
)
def test_values_beyond_what_can_be_computed_are_refused(name, value, message):
    with pytest.raises(ConfigError, match=f"{name}: found .*{message}"):
        resolve(Config(), arguments={name: value})


def test_zero_still_means_the_data_sets_own():
    assert resolve(Config(), arguments={"data.stride_seconds": "0", "data.clip_seconds": "0"}) == Config()


def test_words_of_a_list_must_be_words():
    with pytest.raises(ConfigError, match=r"data.evaluate: found \(5,\), expected words"):
        resolve(Config(data=DataConfig(evaluate=(5,))))


def test_cuda_without_a_gpu_names_the_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"run.device=cuda: .*; try: --run.device=cpu"):
        distributed.start("cuda")


@pytest.mark.parametrize(
    ("error", "advised"), [(torch.OutOfMemoryError("CUDA out of memory"), True), (MemoryError(), False)], ids=repr
)
def test_frames_per_forward_is_advised_only_where_the_towers_ran_out(start, error, advised):
    def main(config, run):
        raise error

    code, text = start(main)
    assert code == 6
    assert ("try: --model.frames_per_forward" in text) is advised


# Weights


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"family": "clip4clip"}, "another family: .*found xclip, asked for clip4clip"),
        ({"header": "lstm"}, "another header: .*found mean, asked for lstm"),
        ({"max_words": 12}, "another max_words: .*found 10, asked for 12; try: --model.max_words=0"),
    ],
)
def test_untrained_weights_of_another_kind_than_asked_for_are_refused(tmp_path, wish, message):
    save_model(tiny_two_tower(), tmp_path)
    model = ModelConfig(weights=f"untrained:{tmp_path}", **wish)
    with pytest.raises(UserError, match=message) as caught:
        build_model(model, DataConfig(), seed=42, device=CPU)
    assert caught.value.exit_code == 4


def test_the_default_weights_are_found_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert build_model(ModelConfig(), DataConfig(), seed=42, device=CPU).family == "xclip"


def test_a_folder_of_the_same_name_here_wins_over_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(tiny_two_tower(), tmp_path / "data" / "demo" / "model")
    assert build_model(ModelConfig(), DataConfig(), seed=42, device=CPU).digest() == tiny_two_tower().digest()


# Run folders


@pytest.mark.parametrize("name", ["../y", "..", ".", "a/../..", "/elsewhere", "features", "features/x"])
def test_a_run_name_that_leaves_the_root_or_is_the_feature_store_is_refused(start, tmp_path, name):
    code, text = start(lambda config, run: None, name=name)
    assert code == 2
    assert text.startswith(f"error: run.name={name}: ")
    assert not (tmp_path / "runs").exists()


def test_a_run_name_may_hold_a_folder(start, tmp_path):
    assert start(lambda config, run: None, name="a/b")[0] == 0
    assert (tmp_path / "runs" / "a" / "b" / "config.json").exists()


@pytest.mark.parametrize("place", ["root_is_a_file", "root_below_a_file", "folder_is_a_file", "lock", "name_too_long"])
def test_a_run_folder_that_cannot_be_one_is_one_line(start, tmp_path, place):
    runs, name, more = tmp_path / "runs", "x", []
    if place.startswith("root"):
        (tmp_path / "file").write_text("")
        more = [f"--run.root={tmp_path / 'file' / ('' if place == 'root_is_a_file' else 'x')}"]
    elif place == "folder_is_a_file":
        runs.mkdir()
        (runs / "x").write_text("")
    elif place == "lock":
        (runs / "x" / "lock").mkdir(parents=True)
    else:
        name = "x" * 300
    code, text = start(lambda config, run: None, *more, name=name)
    assert code == 5, text
    assert text.startswith("error: cannot write: ")
    assert text.count("\n") == 1


def test_a_feature_store_that_cannot_be_a_folder_is_refused_before_anything_is_encoded(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write: .*file: File exists"):
        FeatureStore(tmp_path / "file")


def leave_results(config, run):
    """Stands for a whole run."""
    for name in ("scores.npz", "metrics.json", "report.md", "report.html", "bootstrap.npz", "timelines/a.png"):
        run.write_text(name, "old")
    run.write_text("notes.txt", "the user's own")


def fail(config, run):
    raise DataError("broken", "a.mp4")


def test_results_of_another_configuration_move_to_a_folder_of_their_own_and_none_is_lost(start, tmp_path):
    folder = tmp_path / "runs" / "x"
    assert start(leave_results)[0] == 0
    (folder / "traceback-rank0.txt").write_text("old")
    code, text = start(fail, "--data.crop=pad")
    assert code == 3
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "log.txt",
        "lock",
        "notes.txt",
        "replaced-1",
        "status.json",
    }
    assert str(folder / "replaced-1") in text
    assert (folder / "replaced-1" / "timelines" / "a.png").read_text() == "old"
    assert json.loads((folder / "replaced-1" / "config.json").read_text())["data"]["crop"] == "center"
    assert start(leave_results, "--data.crop=squash")[0] == 0
    assert start(fail)[0] == 3
    assert json.loads((folder / "replaced-2" / "config.json").read_text())["data"]["crop"] == "squash"
    assert start(leave_results, "--data.crop=pad")[0] == 0
    assert json.loads((folder / "config.json").read_text())["data"]["crop"] == "pad"


def test_results_of_the_same_configuration_survive_a_run_that_fails(start, tmp_path):
    assert start(leave_results, "--data.crop=pad")[0] == 0
    code, text = start(fail, "--data.crop=pad", "--run.device=auto")
    assert code == 3
    assert (tmp_path / "runs" / "x" / "timelines" / "a.png").read_text() == "old"
    assert "another configuration" not in text


def test_what_killed_writes_have_left_is_removed_at_the_next_start(start, tmp_path):
    assert start(leave_results)[0] == 0
    folder = tmp_path / "runs" / "x"
    left = [folder / ".metrics.json.a1b2c3d_", folder / "timelines" / ".a.png.zzzzzzzz"]
    for path in left:
        path.write_text("half")
    assert start(fail)[0] == 3
    assert not any(path.exists() for path in left)
    assert (folder / "notes.txt").exists()


# How a run ends


def test_a_log_on_a_full_disk_adds_no_second_error(start, monkeypatch):
    class Full(logging.FileHandler):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(launcher.logging, "FileHandler", Full)
    code, text = start(fail)
    assert code == 3
    assert text.splitlines()[-1] == "error: broken: a.mp4"
    assert text.count("error: ") == 1
    assert "Traceback" not in text


def test_what_the_caller_ignores_stays_ignored(tmp_path):
    body = "os.kill(os.getpid(), signal.SIGHUP); run.write_text('done', '')"
    process = script(tmp_path, body, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert (tmp_path / "runs" / "x" / "done").exists()


def test_the_other_processes_end_with_one_line_when_one_fails(tmp_path):
    body = "gather('x', run.world) if run.world.is_main else fail()"
    code = "from xclip_module.run.distributed import gather\nfrom xclip_module.errors import DataError\n"
    code += "def fail():\n    time.sleep(0.5)\n    raise DataError('broken', 'a.mp4')\n"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        world = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(script(tmp_path, body, "--run.device=cpu", code=code, env=world))
    texts = [process.communicate(timeout=100)[1] for process in processes]
    assert "error: another process ended: its own line says why\n" in texts[0]
    assert "error: broken: a.mp4 [rank 1]" in texts[1]
    assert "Traceback" not in texts[0] + texts[1]
    assert not list((tmp_path / "runs" / "x").glob("traceback*"))


def test_a_gathering_that_fails_for_another_reason_stays_a_defect(monkeypatch):
    def fails(values, value):
        raise RuntimeError("something else")

    monkeypatch.setattr(torch.distributed, "all_gather_object", fails)
    with pytest.raises(RuntimeError, match="something else"):
        distributed.gather(1, World(0, 2, CPU))


def test_threads_that_still_compute_cannot_abort_the_end(tmp_path):
    """An ordinary end waits for this thread for ever; the exit code must come anyway, with the log written."""
    body = (
        "threading.Thread(target=time.sleep, args=(600,)).start(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"
    )
    process = script(tmp_path, body)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 75, text
    assert "error: stopped by SIGTERM" in (tmp_path / "runs" / "x" / "log.txt").read_text()


def test_help_is_printed_where_only_ascii_can_be(tmp_path):
    process = script(tmp_path, "pass", "--help", env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "--data.root" in out


def test_a_run_is_named_by_the_digest_of_all_weights(tmp_path):
    """Two models that share the frame encoder share stored features and nothing else."""
    model = tiny_two_tower()
    with torch.no_grad():
        before = model.digest(), model.stored_digest()
        model.text_encoder.tower.text_projection.weight += 1
    assert model.stored_digest() == before[1]
    assert model.digest() != before[0]


def test_features_may_lie_above_the_runs(start, tmp_path):
    assert start(lambda config, run: None, f"--data.features={tmp_path}")[0] == 0


def test_a_track_that_these_queries_have_not_is_refused_before_any_video_is_read():
    data = DataConfig(video="data/demo/videos/video07.mp4", queries="one sentence")
    with pytest.raises(ConfigError, match=r"these queries have similarity-only; try: --eval.track=similarity-only"):
        load(data, EvalConfig(track="+query-set"), head_path="")


@pytest.mark.parametrize(("body", "code"), [("pass", 0), ("raise KeyError('x')", 1)])
def test_a_stream_that_was_closed_before_the_start_changes_no_exit_code(tmp_path, body, code):
    """As with `2>&-`, and no two files share its number: status and log are whole."""
    done = script(tmp_path, body, preexec_fn=lambda: os.close(2))
    done.communicate(timeout=60)
    assert done.returncode == code
    assert json.loads((tmp_path / "runs" / "x" / "status.json").read_text())["exit_code"] == code
    assert "run folder" in (tmp_path / "runs" / "x" / "log.txt").read_text()
