"""The benchmark compares what it says: the same results by the slow and the fast way."""

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from support.models_factory import clips, texts, tiny_two_tower

from xclip_module.benchmark import localisation, retrieval, training
from xclip_module.benchmark.__main__ import main
from xclip_module.benchmark.meter import Cost, measured, table
from xclip_module.benchmark.models import frame_flops
from xclip_module.benchmark.similarity import released, released_block
from xclip_module.benchmark.video import write_long_video
from xclip_module.datasets.cholec80.corpus import PHASES
from xclip_module.errors import DataError
from xclip_module.evaluation.retrieval import ranks
from xclip_module.evaluation.retrieval_scoring import cosine
from xclip_module.interface import Curve, Embeddings


@torch.no_grad()
def test_the_released_expressions_give_our_scores(monkeypatch):
    monkeypatch.setattr("xclip_module.benchmark.similarity._BLOCK", 3)
    model = tiny_two_tower(header="transformer", header_layers=2)
    text = model.encode_text(*texts(7, 10))
    videos = model.encode_video(*clips(7, 5))
    expected = model.similarity(text, videos)
    for has_header in (True, False):
        ours = released(model, text, videos, has_header=has_header)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    block = released_block(model.head, Embeddings(*(x[:2] for x in text)), videos)
    torch.testing.assert_close(block * model.logit_scale.exp(), expected[:2], rtol=0, atol=1e-4)


def test_the_work_of_a_vit_b_32_is_the_published_one():
    """4.4 billion multiply-adds a 224 x 224 picture, 17.6 for patches of 16 (two operations each)."""
    assert frame_flops(32) / 2 == pytest.approx(4.4e9, rel=0.02)
    assert frame_flops(16) / 2 == pytest.approx(17.6e9, rel=0.02)


def test_the_long_video_has_the_promised_length_size_and_structure(tmp_path):
    path = write_long_video(tmp_path / "long.mp4", seconds=4, size=(128, 72))
    with av.open(str(path)) as container:
        kinds = [PictureType(frame.pict_type).name for frame in container.decode(video=0)]
        stream = container.streams.video[0]
        assert (len(kinds), stream.width, stream.height, float(stream.average_rate)) == (100, 128, 72, 25.0)
    assert {"I", "P", "B"} == set(kinds)


def test_memory_at_its_peak_is_measured_not_at_the_end():
    with measured(torch.device("cpu")) as cost:
        torch.ones(30_000_000).sum()
    assert 60e6 < cost.memory < 400e6
    assert cost.seconds > 0


def test_ratios_are_against_the_named_row():
    rows = {"slow": Cost(10.0, 20.0), "fast": Cost(2.0, 2.0)}
    head, slow, fast = table(rows, against="slow", notes={"fast": "new"})
    assert head == "        seconds      CPU s   peak MB    ratio"
    assert slow == "slow      10.00      20.00         0     1.0x"
    assert fast == "fast       2.00       2.00         0     5.0x  new"
    assert table(rows, against="slow", by="cpu_seconds")[2].endswith("10.0x")


def test_an_unknown_part_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["zeroshoot"])
    assert ended.value.code == 2
    assert "known: zeroshot, similarity, decode" in capsys.readouterr().err


PHASE_TIMES = {
    f"video{n:02d}": (
        {name: ((60.0 * i + n, 60.0 * (i + 1) + n),) for i, name in enumerate(PHASES)},
        440.0 + n,
    )
    for n in range(12)
}


def test_simulated_curves_have_the_asked_auroc():
    strength = localisation._strength(PHASE_TIMES, 0.8)
    curves = localisation._simulate(PHASE_TIMES, strength, seed=0)
    assert localisation._auroc(curves, PHASE_TIMES) == pytest.approx(0.8, abs=0.01)
    weaker = localisation._simulate(PHASE_TIMES, strength / 2, seed=0)
    assert localisation._auroc(weaker, PHASE_TIMES) < 0.78


def test_the_plain_segmenters_do_what_they_are_compared_as():
    scores = np.tile(np.repeat([0.1, 0.9, 0.2, 0.7], [10, 5, 10, 15]), (7, 1))
    curve = Curve("v", np.arange(40) * 4.0 + 2.0, scores, 160.0)
    found = localisation._threshold(lambda row: 0.5)(curve).moments["Preparation"]
    assert [tuple(m) for m in found] == [(40.0, 60.0, pytest.approx(0.9)), (100.0, 160.0, pytest.approx(0.7))]
    windows = localisation._windows(curve).moments["Preparation"]
    assert windows[0].end - windows[0].start in {4.0 * size for size in localisation._WINDOWS}
    assert windows[0][2] == max(m.score for m in windows)


def test_the_localisation_part_prints_the_time_of_a_video_and_refuses_a_folder_without_labels(capsys, tmp_path):
    assert localisation.run(videos=1)[-1].startswith("a video: similarity-only")
    assert main(["localisation", f"--labels={tmp_path}"]) == DataError.exit_code
    assert "no phase labels" in capsys.readouterr().err


def test_pairs_are_matched_alike_by_loops_and_by_ours():
    lines = training.choice_of_pairs(videos=5, sentences=3, batch=4, steps=8)
    assert lines[2].endswith("1.0x")
    assert lines[0] == "the 4 pairs of 8 steps of 15 pairs, and who matches whom:"
    assert lines[-1] == "the same matches in 8 of 8 steps"


def test_made_up_texts_are_nearest_to_their_own_video_and_then_to_its_cluster():
    text, video = retrieval.features(200)
    assert (text.tokens.shape, video.tokens.shape) == ((200, 32, 512), (200, 12, 512))
    scores = cosine(text, video).numpy()
    assert (ranks(scores).t2v == 0).mean() > 0.6
    clusters = np.arange(200) // 20
    best = np.argsort(-scores, axis=1)[:, :20]
    assert (clusters[best] == clusters[:, None]).mean() > 0.5


def test_what_was_not_run_whole_is_scaled_by_its_pairs(monkeypatch):
    """1000 x 1000 in 3 s are 10,000 x 10,000 in 300 s; 40 x 1000 in 2 s are 2500 times as many."""
    scores = np.ones((2, 2))
    answers = {
        (retrieval._released, (40, 1000), True): (Cost(2.0, 2.0), scores),
        (retrieval._released, (1000, 1000), False): (Cost(6.0, 6.0), scores),
        (retrieval._all_pairs, 1000): (Cost(3.0, 3.0), scores),
        (retrieval._in_two_stages, 10_000): (Cost(50.0, 50.0), ["the note"]),
    }
    monkeypatch.setattr(retrieval, "apart", lambda way, *arguments: answers[way, *arguments[:-1]])
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    lines = retrieval.run(torch.device("cpu"))
    assert [line.split()[-1] for line in lines[3:5]] == ["1.0x", "2.0x"]
    assert [line.split()[-4] for line in lines[10:14]] == ["5000.00", "600.00", "300.00", "50.00"]
    assert [line.split()[-1] for line in lines[10:14]] == ["1.0x", "8.3x", "16.7x", "100.0x"]
