"""run_zeroshot.py on a retrieval benchmark, from files to files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.models_factory import clips, tiny_ms_xclip, tiny_two_tower
from support.small_retrieval import write_msrvtt

import run_zeroshot
from xclip_module.check import check_zeroshot
from xclip_module.config import Config, DataConfig, resolve
from xclip_module.datasets.retrieval.benchmarks import BENCHMARKS, load_split
from xclip_module.datasets.retrieval.video_index import index_videos
from xclip_module.errors import ConfigError
from xclip_module.evaluation import retrieval
from xclip_module.run.protocols import PROTOCOLS, find_protocol
from xclip_module.sections import RETRIEVAL_NAMES
from xclip_module.tasks.retrieval.clips import ClipEncoder, choose_frames
from xclip_module.tasks.retrieval.load import scored_splits
from xclip_module.video.frame_choice import FrameChoice

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Seven videos of one to five seconds, and random weights that take four frames."""
    return write_msrvtt(tmp_path_factory.mktemp("retrieval"))


def files(folder):
    return {name: (folder / name).read_bytes() for name in ("similarity.npz", "ranks.csv", "metrics.json")}


def test_a_run_leaves_matrix_ranks_metrics_and_report_that_agree(start, arguments, tmp_path, capsys):
    code, text = start(run_zeroshot.main, *arguments)
    assert code == 0, text
    folder = tmp_path / "runs" / "x"
    metrics = json.loads((folder / "metrics.json").read_text())
    found = metrics["splits"]["test"]
    assert (found["texts"], found["videos"], found["of_texts"]) == (7, 7, 7)
    with np.load(folder / "similarity.npz") as stored:
        assert found["metrics"] == retrieval.retrieval_metrics(stored["similarity"], stored["text_to_video"])
        assert stored["videos"].tolist() == [f"video{number}" for number in range(7)]
        ranks = retrieval.ranks(stored["similarity"], stored["text_to_video"]).t2v
    table = pd.read_csv(folder / "ranks.csv")
    assert (table["rank"] - 1).tolist() == ranks.tolist()
    assert table["text"][0] == "red lights blink"
    assert retrieval.main([str(folder / "similarity.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["metrics"]
    page = (folder / "report.html").read_text()
    for words in ("published, not ours", "Worst queries", "red lights blink", "data:image/jpeg"):
        assert words in page
    assert "t2v chance" in text


def test_a_second_run_decodes_nothing_and_gives_the_same(start, arguments, tmp_path):
    assert start(run_zeroshot.main, *arguments)[0] == 0
    first = files(tmp_path / "runs" / "x")
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "features").iterdir()}
    assert len(stored) == 7
    assert start(run_zeroshot.main, *arguments, name="y")[0] == 0
    assert files(tmp_path / "runs" / "y") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "features").iterdir()} == stored


@pytest.mark.parametrize("damage", ["gone", "broken"])
def test_a_test_video_that_is_missing_or_broken_ends_the_run_unless_allowed_and_then_counts(start, tmp_path, damage):
    words = write_msrvtt(tmp_path / "own")
    video = tmp_path / "own" / "videos" / "video3.mp4"
    video.write_bytes(b"no video") if damage == "broken" else video.unlink()
    code, text = start(run_zeroshot.main, *words)
    assert code == 3
    assert "video3" in text
    code, text = start(run_zeroshot.main, *words, "--data.skip_unreadable=true", name="y")
    assert code == 0, text
    metrics = json.loads((tmp_path / "runs" / "y" / "metrics.json").read_text())
    found = metrics["splits"]["test"]
    assert (found["texts"], found["of_texts"], found["videos"], found["of_videos"]) == (6, 7, 6, 7)
    assert list(metrics["skipped"]) == ["video3"]
    assert "6 of 7" in (tmp_path / "runs" / "y" / "report.md").read_text()


def test_two_processes_give_the_scores_of_one(start, arguments, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "run_zeroshot.py", f"--run.root={tmp_path / 'two'}", "--run.name=x", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    code, text = start(run_zeroshot.main, *arguments)
    assert code == 0, text
    folders = (tmp_path / "runs" / "x", tmp_path / "two" / "x")
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    assert one == two
    loaded = [np.load(folder / "similarity.npz")["similarity"] for folder in folders]
    np.testing.assert_allclose(*loaded, atol=1e-5)  # products of other blocks round differently


# Distance from the float32 clip, of its length. The store holds float16, 11 bits; bf16 has 8 bits, so that each of the
# tower's operations rounds by up to 2**-9, and some of them add up.
@pytest.mark.parametrize(("chosen", "tolerance"), [("fp32", 2**-11), ("bf16", 8 * 2**-9)])
@pytest.mark.parametrize(
    "changes", [{}, {"family": "clip4clip", "header": "transformer"}, {"patch_frames": 3, "family": "clip4clip"}]
)
def test_clips_from_the_store_are_those_of_the_padded_pixels(changes, chosen, tolerance):
    """A clip of three frames in five slots: empty slots are zero pictures, as the released loaders fill them."""
    model = tiny_two_tower(**({"header_layers": 1} | changes if "header" in changes else changes))
    pixels, mask = clips(2, 5, is_ragged=True, seed=3)
    encoder = ClipEncoder(model, FrameChoice("grid", 5), chosen)
    encode = encoder.encode(torch.device("cpu"))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (model.picture.mean, model.picture.std))
    grey = ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    arrays = [encode(iter([grey[row, : int(mask[row].sum())]]), int(mask[row].sum()), 1.0, "v") for row in range(2)]
    found = encoder.embed(arrays, torch.device("cpu"))
    expected = model.encode_video((grey.float() / 255 - mean) / std * mask[..., None, None, None], mask)
    assert torch.equal(found.mask, expected.mask)
    for one, other in ((found.pooled, expected.pooled), (found.tokens, expected.tokens)):
        assert ((one - other).norm(dim=-1) <= tolerance * other.norm(dim=-1)).all()


def test_ms_xclip_gets_frames_spread_over_the_video():
    data = DataConfig(name="msrvtt-9k")
    assert choose_frames(data, tiny_two_tower(), weights="") == FrameChoice("grid", 5)
    assert choose_frames(data, tiny_ms_xclip_model(), weights="") == FrameChoice("spread", 4)


def tiny_ms_xclip_model():
    from xclip_module.interface import Picture
    from xclip_module.models.ms_xclip import MicrosoftXClip

    return MicrosoftXClip(tiny_ms_xclip(), Picture(32, (0.5,) * 3, (0.5,) * 3))


def test_the_schema_names_every_benchmark():
    assert set(RETRIEVAL_NAMES) == set(BENCHMARKS)


@pytest.mark.parametrize(
    ("evaluate", "name", "expected"),
    [
        (("val", "test"), "msrvtt-9k", ("test",)),
        (("val", "test"), "msvd", ("val", "test")),
        (("val", "test"), "activitynet", ("val",)),
        (("test",), "activitynet", ("val",)),
    ],
)
def test_without_the_asked_split_the_reported_one_is_scored(evaluate, name, expected):
    assert scored_splits(DataConfig(name=name, evaluate=evaluate)) == expected


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--data.queries=a", "data.queries with data.name=msrvtt-9k"),
        ("--model.head=x", "model.head with data.name=msrvtt-9k"),
        ("--data.frames_per_clip=7", "takes exactly 4 frame slots"),
        ("--data.root=", "needs its videos"),
        ("--eval.background=ours", "eval.background with data.name=msrvtt-9k"),
        ("--eval.prompt_sets=all", "eval.prompt_sets with data.name=msrvtt-9k"),
    ],
)
def test_what_cannot_be_is_one_line(start, arguments, flag, message):
    code, text = start(run_zeroshot.main, *arguments, flag)
    assert (code, message in text) == (2, True), text


def test_a_protocol_is_printed_with_its_source_and_gives_way_to_flags(start, arguments, tmp_path):
    code, text = start(run_zeroshot.main, "--protocol=xclip_msrvtt_vit32", *arguments, "--data.frames_per_clip=3")
    assert "protocol xclip_msrvtt_vit32, from X-CLIP (Ma et al. 2022), github.com/xuguohai/X-CLIP" in text
    assert code in (2, 4)  # these weights take four frames and have a mean header
    config = json.loads((tmp_path / "runs" / "x" / "config.json").read_text())
    assert (config["data"]["frames_per_clip"], config["model"]["header"]) == (3, "transformer")


@pytest.mark.parametrize(
    ("name", "data", "epochs", "batch", "slots", "words"),
    [
        ("xclip_msrvtt_vit32", "msrvtt-9k", 5, 300, 12, 32),
        ("xclip_msvd_vit16", "msvd", 5, 80, 12, 32),
        ("xclip_lsmdc_vit32", "lsmdc", 5, 300, 12, 32),
        ("xclip_didemo_vit16", "didemo", 20, 16, 64, 64),
        ("xclip_activitynet_vit32", "activitynet", 20, 112, 64, 64),
    ],
)
def test_the_released_scripts_values_are_in_their_protocols(name, data, epochs, batch, slots, words):
    config = resolve(Config(), protocol=find_protocol(name))
    found = (config.data.name, config.finetune.epochs, config.finetune.batch_size)
    assert found == (data, epochs, batch)
    assert (config.data.frames_per_clip, config.model.max_words) == (slots, words)
    assert config.model.weights == f"openai/clip-vit-base-patch{name[-2:]}"
    section = config.finetune
    assert (section.lr, section.pretrained_lr_scale, section.optimizer, section.weight_decay) == (
        *(1e-4, 1e-3),
        *("bertadam", 0.2),
    )
    assert (section.loss, section.freeze_layers, section.drop_last) == ("infonce", 0, True)
    assert len([one for one in PROTOCOLS if one.startswith("xclip_")]) == 10


def test_an_empty_split_is_one_line_that_names_the_file(start, tmp_path):
    words = write_msrvtt(tmp_path / "own")
    (tmp_path / "own" / "annotations" / "MSRVTT_JSFUSION_test.csv").write_text("key,vid_key,video_id,sentence\n")
    code, text = start(run_zeroshot.main, *words)
    assert (code, "no sentence in msrvtt-9k test" in text, "MSRVTT_JSFUSION_test.csv" in text) == (3, True, True), text


def test_a_split_that_the_set_lacks_is_named_and_the_reported_one_scored(start, arguments):
    code, text = start(run_zeroshot.main, *arguments, "--data.evaluate=val")
    assert (code, "msrvtt-9k has no split val: its reported split test is scored" in text) == (0, True), text


def test_the_check_looks_at_every_video_and_scores_one(start, arguments, tmp_path):
    code, text = start(run_zeroshot.main, *arguments, "--check", check=check_zeroshot)
    assert (code, "videos: 7 of 7 fit" in text, "forecast:" in text) == (0, True, True), text
    assert not list((tmp_path / "runs").rglob("similarity.npz"))


def test_ms_xclip_on_a_grid_of_seconds_is_refused():
    data = DataConfig(name="msrvtt-9k", frame_rule="grid")
    with pytest.raises(ConfigError, match="knows no empty slots.*--data.frame_rule=spread"):
        choose_frames(data, tiny_ms_xclip_model(), weights="w")


def test_half_of_a_character_in_a_caption_is_no_obstacle(tmp_path):
    write_msrvtt(tmp_path / "own")
    path = tmp_path / "own" / "annotations" / "MSRVTT_JSFUSION_test.csv"
    split = load_split("msrvtt-9k", "test", annotations=path.parent, videos=index_videos(tmp_path / "own" / "videos"))
    assert len(split._replace(texts=("bad \ud83d half", *split.texts[1:])).digest) == 12
