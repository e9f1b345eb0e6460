"""run_finetune.py from end to end on real files: ended at any moment it comes to the same result."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from support.models_factory import tiny_ms_xclip
from support.small_finetune import write_project

import run_finetune
from xclip_module.check import check_finetune, check_zeroshot
from xclip_module.finetune import run as finetuning
from xclip_module.models import load_checkpoint
from xclip_module.models.demo_model import write_demo_model
from xclip_module.training import checkpoint, grad_cache
from xclip_module.training.grad_cache import backward

ROOT = Path(__file__).parents[2]
# SIGKILLs of one run; the published figure is 20.
KILLS = os.environ.get("KILLS", "4")
pytestmark = pytest.mark.usefixtures("one_thread")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def only_train(config, run):
    """The training without the evaluation and report behind it."""
    finetuning.finetune(config, run)


def newest(folder):
    return checkpoint.newest(folder / "checkpoints").state


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("project"))


def harness(root, kills, number, arguments):
    script = ROOT / "tests" / "support" / "finetune_harness.py"
    command = [sys.executable, script, root, "3", kills, number, *arguments]
    done = subprocess.run(map(str, command), capture_output=True, text=True, env=ENVIRONMENT, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_killed_again_and_again_it_ends_with_the_same_bits(arguments, tmp_path):
    """Weights, moments, scaler, progress, logged rows, best and last weights, scores and metrics."""
    often = ["--finetune.save_every_steps=3", f"--finetune.epochs={2 * int(KILLS)}"]
    found = harness(tmp_path, KILLS, "SIGKILL", [*arguments, *often])
    assert found["differences"] == []
    assert found["codes"] == [-signal.SIGKILL] * int(KILLS)
    assert found["resumed"] >= 1


def test_stopped_politely_in_any_phase_it_ends_with_75_and_goes_on_to_the_same_bits(arguments, tmp_path):
    found = harness(tmp_path, 3, "SIGTERM", [*arguments, "--finetune.epochs=6"])
    assert found["differences"] == []
    assert found["codes"] == [75] * 3


def test_a_stop_loses_at_most_the_step_under_way(arguments, start, tmp_path, monkeypatch):
    folder, seen = tmp_path / "runs" / "x", []

    def interrupted(batch, *rest, **words):
        seen.append(len(batch.names))
        if len(seen) == 8:
            os.kill(os.getpid(), signal.SIGHUP)
        return backward(batch, *rest, **words)

    with monkeypatch.context() as patch:
        patch.setattr(grad_cache, "backward", interrupted)
        code, text = start(only_train, *arguments)
    assert code == 75
    assert "stopped by SIGHUP" in text
    assert newest(folder)["progress"]["step"] == 7
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["step"]) == ("stopped", 75, 7)
    code, text = start(only_train, *arguments)
    assert code == 0
    assert "goes on from step 7 of 10" in text


def test_the_best_weights_are_a_folder_that_zero_shot_scores_alike(arguments, start, tmp_path):
    import run_zeroshot

    code, text = start(run_finetune.main, *arguments)
    assert code == 0, text
    folder = tmp_path / "runs" / "x"
    metrics = json.loads((folder / "metrics.json").read_text())
    training = metrics["training"]
    assert metrics["title"].startswith("Fine-tuned")
    assert [row["step"] for row in training["validations"]] == [0, 5, 10]
    best = max(training["validations"], key=lambda row: (row["mAP@0.5"], -row["step"]))
    assert best["step"] == training["best_step"]
    # Validation during training and the final evaluation see the same pixels and weights.
    assert metrics["splits"]["val"]["macro"]["AUROC"] == pytest.approx(best["AUROC"], abs=1e-6)
    weights = [word for word in arguments if not word.startswith("--model.weights")]
    code, text = start(run_zeroshot.main, *weights, f"--model.weights={folder / 'best'}", name="again")
    assert code == 0, text
    again = json.loads((tmp_path / "runs" / "again" / "metrics.json").read_text())
    assert again["splits"]["test"]["macro"] == metrics["splits"]["test"]["macro"]
    assert "Val" in (folder / "report.md").read_text()


def test_another_configuration_is_refused_with_the_keys_and_free_keys_are_not(arguments, start, tmp_path):
    assert start(only_train, *arguments, "--finetune.epochs=1")[0] == 0
    code, text = start(only_train, *arguments, "--finetune.epochs=1", "--finetune.lr=0.01", "--data.crop=pad")
    assert code == 2
    assert "finetune.lr was 0.001, is 0.01" in text
    assert "data.crop was 'center', is 'pad'" in text
    assert newest(tmp_path / "runs" / "x")["progress"]["step"] == 5
    free = ["--finetune.micro_batch_size=2", "--finetune.log_every_steps=1", "--finetune.activation_checkpointing=true"]
    assert start(only_train, *arguments, "--finetune.epochs=1", *free)[0] == 0


def test_without_a_name_the_same_command_finds_its_run_again_and_another_does_not(arguments, start):
    folders = []

    def main(config, run):
        folders.append(run.folder)

    for more in ([], [], ["--finetune.lr=0.5"], ["--finetune.log_every_steps=7"]):
        assert start(main, *arguments, *more, name="", resumes=True)[0] == 0
    assert folders[0] == folders[1] == folders[3] != folders[2]


def test_a_damaged_newest_checkpoint_is_passed_over_aloud(arguments, start, tmp_path):
    folder = tmp_path / "runs" / "x"
    assert start(only_train, *arguments)[0] == 0
    whole = newest(folder)
    path = checkpoint.newest(folder / "checkpoints").path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    code, text = start(only_train, *arguments)
    assert code == 0
    assert f"passed over: damaged checkpoint: {path}" in text
    assert "goes on from step 5 of 10" in text
    again = newest(folder)
    assert all(torch.equal(again["model"][name], tensor) for name, tensor in whole["model"].items())


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_damaged_best_weights_are_found_before_training_goes_on(arguments, start, tmp_path, damage):
    assert start(only_train, *arguments)[0] == 0
    (path,) = (tmp_path / "runs" / "x" / "checkpoints").glob("best-*/model.safetensors")
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flipped":
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    code, text = start(only_train, *arguments)
    assert code == 4
    assert "best weights" in text.splitlines()[-1]
    assert "another --run.name" in text


def test_other_training_data_than_the_checkpoints_is_refused(start, tmp_path):
    arguments = write_project(tmp_path, seconds=12)
    assert start(only_train, *arguments, "--finetune.epochs=1")[0] == 0
    label = tmp_path / "copy" / "tool_annotations" / "video01-tool.txt"
    label.write_text(label.read_text().replace("\t1\t", "\t0\t", 1))
    code, text = start(only_train, *arguments, "--finetune.epochs=1")
    assert code == 3
    assert "training data has changed" in text


def test_a_missing_training_video_is_named_and_counted(start, tmp_path):
    arguments = write_project(tmp_path, seconds=12)
    (tmp_path / "copy" / "videos" / "video01.mp4").unlink()
    facts = []
    code, text = start(
        lambda *job: facts.append(finetuning.finetune(*job).origin.training), *arguments, "--finetune.epochs=1"
    )
    assert code == 0
    assert "video01 (no video)" in text
    assert facts[0]["left out"].startswith("video01 (no video); video03")
    assert facts[0]["videos"] == 1
    strict = [word for word in arguments if "skip_unreadable" not in word]
    code, text = start(only_train, "--check", *strict, check=check_finetune)
    assert code == 3
    assert "9 videos missing" in text


def test_what_a_killed_start_left_in_the_log_is_written_anew(arguments, start, tmp_path):
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    rubbish = '{"step": 2, "loss": 9.0}\nhello\n[1]\n\n{"step": "x"}\n{"step": 4, "lo'
    (folder / "metrics.jsonl").write_text(rubbish)
    assert start(only_train, *arguments)[0] == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 8, 10]
    assert rows[0]["AUROC"] is not None


def test_a_checkpoint_of_another_shape_is_one_line(start, tmp_path):
    arguments = write_project(tmp_path, seconds=12)
    assert start(only_train, *arguments, "--finetune.epochs=1")[0] == 0
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["spec"]["text"]["layers"] = 1
    path.write_text(json.dumps(config))
    code, text = start(only_train, *arguments, "--finetune.epochs=1")
    assert code == 4
    assert "checkpoint of other weights" in text.splitlines()[-1]


def test_a_number_that_val_cannot_have_chooses_nothing_and_stops_nothing(start, tmp_path):
    arguments = write_project(tmp_path, seconds=12)
    (tmp_path / "copy" / "phase_annotations" / "video07-phase.txt").unlink()
    tools = tmp_path / "copy" / "tool_annotations" / "video07-tool.txt"
    tools.write_text(tools.read_text().replace("\t1", "\t0"))
    facts = []
    job = [*arguments, "--finetune.epochs=1", "--finetune.patience=1"]
    code, text = start(lambda *words: facts.append(finetuning.finetune(*words).origin.training), *job)
    assert code == 0
    assert "mAP@0.5 is undefined on val" in text
    assert (facts[0]["steps"], facts[0]["chosen"]) == (3, "last (undefined on val)")


def test_a_refused_start_leaves_the_status_of_the_run(arguments, start, tmp_path):
    assert start(only_train, *arguments, "--finetune.epochs=1")[0] == 0
    path = tmp_path / "runs" / "x" / "status.json"
    before = path.read_text()
    assert start(only_train, *arguments, "--finetune.epochs=9")[0] == 2
    assert path.read_text() == before


@pytest.mark.parametrize(
    "wishes",
    [
        ["--finetune.loss=classification"],
        ["--finetune.loss=masked", "--finetune.balance_phases=true", "--finetune.hard_negatives=0.25"],
        ["--finetune.loss=infonce", "--finetune.frames=video", "--finetune.use_tools=false"],
        ["--finetune.optimizer=bertadam", "--finetune.freeze_layers=1", "--finetune.micro_batch_size=3"],
        ["--finetune.prompt_sets=class_names,templates", "--finetune.cache_fps=5", "--finetune.flip=0.5"],
        ["--finetune.export=fp16", "--finetune.activation_checkpointing=true", "--finetune.micro_batch_size=auto"],
        ["--eval.background=ours", "--eval.prompt_sets=class_names"],
        ["--run.precision=bf16", "--finetune.drop_last=true", "--finetune.patience=1"],
    ],
    ids=lambda wishes: wishes[0].split("=")[1],
)
def test_every_choice_trains_and_leaves_weights_that_load(arguments, start, tmp_path, wishes):
    code, text = start(only_train, *arguments, *wishes)
    assert code == 0, text
    folder = tmp_path / "runs" / "x"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss"] > row["floor"] >= 0 for row in rows if "loss" in row)
    assert load_checkpoint(folder / "best").family == load_checkpoint(folder / "last").family == "xclip"


def test_ms_xclip_is_trained_and_leaves_a_hugging_face_folder(arguments, start, tmp_path):
    vocabulary = write_demo_model(tmp_path / "tokenizer", ["a clip"]).vocabulary
    tiny_ms_xclip(vocabulary).save_pretrained(tmp_path / "model")
    weights = [f"--model.weights={tmp_path / 'model'}", f"--model.tokenizer={tmp_path / 'tokenizer'}"]
    code, text = start(run_finetune.main, *arguments, *weights, "--finetune.epochs=1", "--finetune.micro_batch_size=4")
    assert code == 0, text
    last = load_checkpoint(tmp_path / "runs" / "x" / "last")
    before = tiny_ms_xclip(vocabulary).state_dict()
    moved = [name for name, tensor in last.model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(moved) > 0.9 * len(before)


def test_clip4clip_with_a_header_is_trained(start, tmp_path):
    arguments = write_project(tmp_path, seconds=12)
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["spec"] |= {"family": "clip4clip", "header": "transformer", "header_layers": 1}
    path.write_text(json.dumps(config))
    code, text = start(only_train, *arguments, "--finetune.epochs=1")
    assert code == 0, text
    assert load_checkpoint(tmp_path / "runs" / "x" / "last").protocol == "clip4clip, transformer header"


def test_the_test_split_is_not_opened_before_training_has_ended(arguments, start, monkeypatch):
    from xclip_module.video import decode_ahead, reading

    opened = []
    for module in (decode_ahead, reading):
        original = module.probe
        monkeypatch.setattr(module, "probe", lambda path, o=original, **w: opened.append(path.name) or o(path, **w))
    code, _ = start(only_train, *arguments, f"--finetune.cache={arguments[1][12:]}/frames-of-this-test")
    assert code == 0
    assert set(opened) == {"video01.mp4", "video02.mp4", "video07.mp4"}


def test_without_a_val_split_the_last_weights_are_kept_and_it_is_said(start, tmp_path):
    arguments = write_project(tmp_path, seconds=12)
    (tmp_path / "copy" / "videos" / "video07.mp4").unlink()
    code, text = start(run_finetune.main, *arguments, "--finetune.epochs=1")
    assert code == 0, text
    assert "no val video" in text
    training = json.loads((tmp_path / "runs" / "x" / "metrics.json").read_text())["training"]
    assert (training["chosen"], training["validations"]) == ("last (no val split)", [])


def test_a_diverging_run_ends_with_8_step_rate_scale_and_clips(arguments, start):
    code, text = start(only_train, *arguments, "--finetune.lr=1e6", "--finetune.max_skipped_steps=2")
    assert code == 8
    line = text.splitlines()[-1]
    for word in ("2 steps in a row up to step", "lr ", "loss scale 1", "video0"):
        assert word in line


def test_a_shortage_of_memory_names_the_next_micro_batch(arguments, start, monkeypatch):
    def short(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(grad_cache, "backward", short)
    code, text = start(only_train, *arguments, "--finetune.micro_batch_size=6")
    assert code == 6
    assert "try: --finetune.micro_batch_size=3 (the same run goes on with it)" in text


def test_a_second_start_says_who_holds_the_run(arguments, start):
    def main(config, run):
        command = [sys.executable, "run_finetune.py", f"--run.root={run.folder.parent}", "--run.name=x", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
        seen.append((done.returncode, done.stderr))

    seen = []
    assert start(main, *arguments, resumes=True)[0] == 0
    assert seen[0][0] == 2
    assert "this run is already going" in seen[0][1]
    assert f"held by process {os.getpid()}" in seen[0][1]


def test_check_tries_everything_forecasts_and_trains_nothing(arguments, start, tmp_path):
    code, text = start(only_train, "--check", *arguments, check=check_finetune, resumes=True)
    assert code == 0, text
    for word in ("data: demo 6/3/3", "4 of 4 fit (opened", "a step of 8 clips", "validation on one video"):
        assert word in text
    for word in ("checkpoint written and read back", "forecast: 0:", "ends about", "memory:", "disk: checkpoints"):
        assert word in text
    (folder,) = (tmp_path / "runs").glob("check_*")
    assert {path.name for path in folder.iterdir()} == {"config.json", "lock", "log.txt", "status.json"}


def test_check_names_every_broken_video_before_anything_is_tried(start, tmp_path):
    arguments = write_project(tmp_path, seconds=12)
    for name in ("video02.mp4", "video10.mp4"):
        (tmp_path / "copy" / "videos" / name).write_bytes(b"\0" * 4000)
    code, text = start(only_train, "--check", *arguments, check=check_finetune)
    assert "video02: " in text
    assert "video10: " in text
    assert "videos: 2 of 4 fit" in text
    assert "left out: " in text


def test_only_the_deep_check_finds_damage_inside_a_video(start, tmp_path):
    arguments = write_project(tmp_path, seconds=12)
    path = tmp_path / "copy" / "videos" / "video10.mp4"
    content = bytearray(path.read_bytes())
    inside = content.index(b"mdat") + 1500
    content[inside : inside + 400] = bytes(400)
    path.write_bytes(bytes(content))
    code, text = start(only_train, "--check", *arguments, check=check_zeroshot)
    assert code == 0
    assert "videos: 2 of 2 fit (opened, length as labelled)" in text
    code, text = start(only_train, "--check=deep", *arguments, check=check_zeroshot)
    assert "video10: " in text
    assert "videos: 1 of 2 fit (every frame decoded)" in text


def torchrun(name, root, arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "run_finetune.py"]
    command += [f"--run.root={root}", f"--run.name={name}", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )


def ranks_of(launcher):
    found = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(word) for word in found]


def wait_for_steps(launcher):
    timer = threading.Timer(120, launcher.kill)
    timer.start()
    seen = []
    for line in launcher.stdout:
        seen.append(line)
        if "  loss " in line:
            timer.cancel()
            return
    raise AssertionError("".join(seen[-9:]))


@pytest.mark.parametrize("victim", ["rank 1", "torchrun"])
def test_under_torchrun_a_death_ends_all_within_a_minute_and_the_run_goes_on(arguments, tmp_path, victim):
    launcher = torchrun("x", tmp_path, [*arguments, "--finetune.epochs=300"])
    wait_for_steps(launcher)
    ranks = ranks_of(launcher)
    assert len(ranks) == 2
    ends = [os.pidfd_open(rank) for rank in ranks]
    os.kill(ranks[1] if victim == "rank 1" else launcher.pid, signal.SIGKILL)
    text = launcher.communicate(timeout=60)[0]
    for end in ends:
        assert select.select([end], [], [], 60)[0], "still running"
        os.close(end)
    status = json.loads((tmp_path / "x" / "status.json").read_text())
    assert status["state"] in ("stopped", "failed"), text
    assert newest(tmp_path / "x")["progress"]["step"] == status["step"] > 0


# Differences of the weights after ten steps of 1e-3: the largest, and root mean square. A gradient in bf16 is rounded
# by 2**-9 of its parts, and AdamW makes of any gradient, also of one that is all rounding, a step of the whole rate.
@pytest.mark.parametrize(("chosen", "largest", "mean"), [("fp32", 1e-5, 1e-6), ("bf16", 1e-2, 2e-4)])
def test_two_ranks_train_as_one(arguments, start, tmp_path, chosen, largest, mean):
    words = [*arguments, f"--run.precision={chosen}"]
    launcher = torchrun("two", tmp_path / "runs", words)
    text = launcher.communicate(timeout=300)[0]
    assert launcher.returncode == 0, text
    assert start(only_train, *words, name="one")[0] == 0
    one, two = (newest(tmp_path / "runs" / name)["model"] for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=largest)
    apart = torch.cat([(two[name] - tensor).flatten() for name, tensor in one.items()])
    assert apart.square().mean().sqrt() < mean
