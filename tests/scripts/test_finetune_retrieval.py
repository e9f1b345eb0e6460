"""run_finetune.py on pairs of sentence and video, on real files of two benchmarks."""

import json

import pytest
from support.finetune_harness import STEADY, differences
from support.models_factory import tiny_ms_xclip
from support.small_finetune import write_project
from support.small_retrieval import write_lsmdc, write_msrvtt

import run_finetune
from xclip_module.check import check_finetune
from xclip_module.finetune import run as finetuning
from xclip_module.models.demo_model import write_demo_model
from xclip_module.training import checkpoint, step
from xclip_module.training.grad_cache import backward

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    return write_msrvtt(tmp_path_factory.mktemp("msrvtt"))


@pytest.fixture
def train(start, tmp_path):
    """Trains without the evaluation behind it; gives what it says of itself, its last state, and what was printed."""

    def run(*words, name="x"):
        facts = []
        code, text = start(lambda *job: facts.append(finetuning.finetune(*job).origin.training), *words, name=name)
        assert code == 0, text
        return facts[0], state_of(tmp_path, name), text

    return run


def state_of(tmp_path, name):
    folder = tmp_path / "runs" / name
    state = checkpoint.newest(folder / "checkpoints").state
    state.pop("facts")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"state": state, "rows": [{key: row[key] for key in STEADY if key in row} for row in rows]}


def test_training_memorises_its_pairs_also_of_videos_with_fewer_frames_than_slots(arguments, start, tmp_path):
    """7 videos of 1 to 5 seconds in 4 slots; the test table holds the same ones, and may not choose a step."""
    words = ["--finetune.epochs=15", "--finetune.validate_every_steps=1000"]
    code, text = start(run_finetune.main, *arguments, *words)
    assert code == 0, text
    metrics = json.loads((tmp_path / "runs" / "x" / "metrics.json").read_text())
    facts = metrics["training"]
    before, after = facts["validations"]
    assert before["t2v/R@1"] < 0.6
    assert (after["t2v/R@1"], after["v2t/R@1"], after["t2v/MnR"]) == (1.0, 1.0, 1.0)
    # Validation and the final evaluation see the same pixels, weights and sentences.
    assert metrics["splits"]["test"]["metrics"] == {name: after[name] for name in after if name != "step"}
    assert (facts["clips"], facts["videos"], facts["steps"], facts["epochs"]) == (14, 7, 30, 15)
    assert (facts["monitor"], facts["best_step"], facts["chosen"]) == ("t2v/R@1", 30, "last (no split to choose on)")
    assert facts["validated_on"] == "test (the split that is reported: it chooses nothing)"
    assert "validated on test" in text
    assert facts["curve"][-1]["loss"] < 0.5 * facts["curve"][0]["loss"]


def test_a_seed_gives_the_same_bits_again_even_when_cut_and_another_seed_others(arguments, train, start, monkeypatch):
    def interrupted(batch, *rest, **words):
        seen.append(batch)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return backward(batch, *rest, **words)

    seen = []
    _, whole, _ = train(*arguments, name="whole")
    with monkeypatch.context() as patch:
        patch.setattr(step, "backward", interrupted)
        assert start(finetuning.finetune, *arguments, name="cut")[0] == 75
    _, cut, text = train(*arguments, name="cut")
    assert "goes on from step 3 of 6" in text
    assert differences(whole, cut) == []
    _, other, _ = train(*arguments, "--run.seed=43", name="other")
    assert differences(whole["state"]["model"], other["state"]["model"])
    losses = [row["loss"] for row in whole["rows"] if "loss" in row]
    assert losses != [row["loss"] for row in other["rows"] if "loss" in row]


def test_a_set_with_a_val_split_keeps_the_step_that_is_best_on_it(train, tmp_path):
    """Straight from the videos, every clip once an epoch: 4 of 5 pairs."""
    words = ["--finetune.frames=video", "--finetune.one_sentence=true", "--finetune.batch_size=2"]
    facts, _, _ = train(*write_lsmdc(tmp_path / "lsmdc"), *words)
    assert (facts["clips"], facts["steps"], facts["validated_on"], facts["chosen"]) == (4, 6, "val", "best")
    assert [row["step"] for row in facts["validations"]] == [0, 2, 4, 6]
    best = max(facts["validations"], key=lambda row: (row["t2v/R@1"], -row["step"]))
    assert facts["best_step"] == best["step"]
    assert (tmp_path / "runs" / "x" / "best" / "model.safetensors").exists()


def test_the_released_recipes_train(arguments, train):
    released = ["--finetune.loss=infonce", "--finetune.drop_last=true", "--finetune.epochs=1"]
    for optimizer in ("bertadam", "mmaction2"):
        facts, _, _ = train(*arguments, *released, f"--finetune.optimizer={optimizer}", name=optimizer)
        assert facts["steps"] == 2
        assert all(row["floor"] == 0 for row in facts["curve"])


def test_a_family_without_empty_slots_is_trained_on_as_many_frames_of_every_video(arguments, train, tmp_path):
    vocabulary = write_demo_model(tmp_path / "tokenizer", ["a light"]).vocabulary
    tiny_ms_xclip(vocabulary).save_pretrained(tmp_path / "model")
    weights = [f"--model.weights={tmp_path / 'model'}", f"--model.tokenizer={tmp_path / 'tokenizer'}"]
    facts, _, _ = train(*arguments, *weights, "--finetune.epochs=1", "--finetune.micro_batch_size=4")
    assert [row["step"] for row in facts["validations"]] == [0, 2]


def test_a_val_split_that_changes_between_stop_and_resume_is_refused(train, start, tmp_path):
    """Steps that two val splits call best do not compare."""
    words = write_lsmdc(tmp_path / "lsmdc")
    train(*words)
    path = tmp_path / "lsmdc" / "annotations" / "LSMDC16_annos_val.csv"
    path.write_text(path.read_text().replace("lights", "lamps"))
    code, text = start(lambda *job: finetuning.finetune(*job), *words)
    assert (code, "training data has changed" in text) == (3, True), text


@pytest.mark.parametrize("source", ["cache", "video"])
def test_a_damaged_training_video_is_an_error_or_left_out_and_named(start, train, tmp_path, source):
    words = write_msrvtt(tmp_path / "set", test=[5, 6], count=4)
    words += ["--finetune.epochs=1", f"--finetune.frames={source}"]
    (tmp_path / "set" / "videos" / "video1.mp4").write_bytes(b"\0" * 4000)
    (tmp_path / "set" / "videos" / "video2.mp4").unlink()
    code, text = start(lambda *job: finetuning.finetune(*job), *words, name="strict")
    assert code == 3
    assert "1 of 4 videos of msrvtt-9k train missing" in text
    facts, _, _ = train(*words, "--data.skip_unreadable=true")
    assert facts["left out"].startswith("video1 (")
    assert "video2 (no video)" in facts["left out"]
    assert (facts["clips"], facts["videos"]) == (4, 2)


def test_both_sources_train_alike_up_to_jpeg(arguments, train):
    losses = []
    for source in ("cache", "video"):
        facts, _, _ = train(*arguments, "--finetune.epochs=1", f"--finetune.frames={source}", name=source)
        losses.append([row["loss"] for row in facts["curve"]])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--finetune.jitter_seconds=1"], "finetune.jitter_seconds: msrvtt-9k has sentences of whole videos"),
        (["--finetune.hard_negatives=0.2"], "finetune.hard_negatives: msrvtt-9k has sentences of whole videos"),
        (["--finetune.balance_phases=true"], "finetune.balance_phases: msrvtt-9k has sentences of whole videos"),
        (["--finetune.loss=classification"], "no classification; try: --finetune.loss=multi_positive"),
        (["--finetune.monitor=AUROC"], "judged by other numbers; try: --finetune.monitor=t2v/R@1"),
    ],
)
def test_what_pairs_have_not_is_refused_in_one_line(arguments, start, words, line):
    code, text = start(finetuning.finetune, *arguments, *words)
    assert code == 2
    assert line in text.splitlines()[-1]


def test_what_only_pairs_have_is_refused_for_operations(start, tmp_path):
    operations = write_project(tmp_path, seconds=12)
    for word, line in (
        ("--finetune.one_sentence=true", "finetune.one_sentence: demo has moments of long videos"),
        ("--finetune.monitor=t2v/R@1", "try: --finetune.monitor=mAP@0.5"),
    ):
        code, text = start(finetuning.finetune, *operations, word)
        assert code == 2
        assert line in text.splitlines()[-1]


def test_check_tries_everything_and_trains_nothing(start, tmp_path):
    words = write_msrvtt(tmp_path / "set", count=4, test=[5, 6])
    code, text = start(finetuning.finetune, "--check", *words, check=check_finetune, resumes=True)
    assert code == 0, text
    for word in ("data: msrvtt-9k train", "6 of 6 fit (opened", "a step of 7 clips", "validation on one video"):
        assert word in text
    for word in ("forecast: 0:", "validation frames", "training frames"):
        assert word in text
    (folder,) = (tmp_path / "runs").glob("check_*")
    assert {path.name for path in folder.iterdir()} == {"config.json", "lock", "log.txt", "status.json"}
