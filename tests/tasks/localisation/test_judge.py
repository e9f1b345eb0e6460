"""From curves to metrics.json: each number beside another way to it, and what may influence what."""

import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from xclip_module.config import Config, DataConfig, EvalConfig
from xclip_module.evaluation.frames import labels_at
from xclip_module.evaluation.localisation import localise_pairs, metrics
from xclip_module.evaluation.moment_files import read_files
from xclip_module.interface import Corpus, Curve, Missing, Picture, Query, Sampling, Video
from xclip_module.tasks.localisation.judge import judge
from xclip_module.tasks.localisation.load import LocalisationData, scored_splits
from xclip_module.tasks.localisation.score import LocalisationScores
from xclip_module.tasks.localisation.scorers import SentenceScorer
from xclip_module.tasks.localisation.windows import WindowEncoder
from xclip_module.tasks.localisation.write import moment_lines
from xclip_module.tasks.weights import AS_CONFIGURED

QUERIES = (
    Query("first", "the first phase", "phase"),
    Query("second", "the second phase", "phase"),
    Query("third", "the third phase", "phase"),
    Query("hook", "a hook", "tool"),
    Query("clip", "a clip", "tool"),
)
SPLITS = {"train": range(4), "val": range(4, 8), "test": range(8, 14)}
SECONDS = 240.0


def truth_of(number):
    """Three phases in turn, cut elsewhere in every video; the clip shows in every second one."""
    cuts = [0.0, 60.0 + 5 * (number % 5), 150.0 + 7 * (number % 4), SECONDS]
    phases = {q.name: ((a, b),) for q, a, b in zip(QUERIES[:3], cuts, cuts[1:], strict=False)}
    return {**phases, "hook": ((20.0, 50.0), (90.0, 130.0)), "clip": ((160.0, 180.0),) if number % 2 else ()}


def corpus(queries=QUERIES, **changes):
    videos = tuple(Video(f"v{n}", None, split, SECONDS) for split, numbers in SPLITS.items() for n in numbers)
    names = {query.name for query in queries}
    moments = {f"v{n}": {k: v for k, v in truth_of(n).items() if k in names} for n in range(14)}
    orders = (("first", "second", "third"),) if names >= {"first", "second", "third"} else ()
    return Corpus("made up", videos, tuple(queries), moments, "made up, split 0", orders=orders)._replace(**changes)


def scored(known, strength=1.0, seed=0, **sets):
    def curves(shift):
        rng = np.random.default_rng(seed + shift)
        times = np.arange(60) * 4.0 + 2.0
        for video in known.videos[4:]:
            holds = np.stack([labels_at(times, truth_of(int(video.id[1:]))[q.name]) for q in known.queries])
            yield Curve(video.id, times, strength * holds + rng.normal(size=holds.shape), SECONDS)

    return LocalisationScores(list(curves(0)), {name: list(curves(shift)) for name, shift in sets.items()}, {})


@functools.cache
def run_plain(track="similarity-only"):
    return run(corpus(), track=track)


def run(known, found=None, splits=("val", "test"), **section):
    model = SimpleNamespace(
        stored_digest=lambda: "0" * 32, digest=lambda: "0" * 32, protocol="none", picture=Picture(8, (0,) * 3, (1,) * 3)
    )
    config = Config(eval=EvalConfig(**{"bootstrap": 100, **section}), data=DataConfig(evaluate=splits))
    scorer = SentenceScorer(WindowEncoder(model, Sampling(16.0, 8, 4.0), "fp32"), None, {}, False, AS_CONFIGURED)
    data = LocalisationData(known, scored_splits(config.data, known))
    facts = {"weights": config.model.weights, "crop": config.data.crop, "seed": config.run.seed}
    return judge(data, scorer, found or scored(known), config.eval, **facts), config


def test_metrics_are_what_the_standalone_evaluator_says_of_the_moments_file(tmp_path):
    for track in ("similarity-only", "+query-set", "+procedure-order"):
        outcome, _ = run_plain(track)
        lines = moment_lines(outcome.answers[track], corpus(), track)
        path = tmp_path / "moments.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["split"] == "test"))
        expected = metrics(localise_pairs(read_files(path, path).pairs))
        macro = outcome.metrics["splits"]["test"]["macro"]
        assert {key: pytest.approx(macro[key]) for key in expected} == expected
        assert macro["mAP@0.5"] == macro["det_mAP@0.5"]


def test_similarity_only_ranks_samples_by_the_raw_scores():
    known, found = corpus(), scored(corpus())
    macro = run_plain()[0].metrics["splits"]["val"]["macro"]
    values = []
    for curve in found.curves[:4]:
        for query, row in zip(known.queries, curve.scores, strict=True):
            labels = labels_at(curve.times, known.moments[curve.video][query.name])
            if labels.any():
                values.append(roc_auc_score(labels, row))
    assert macro["AUROC"] == pytest.approx(np.mean(values))


def test_every_track_has_its_row_and_the_chosen_one_is_the_headline():
    outcome, _ = run_plain("+query-set")
    split = outcome.metrics["splits"]["test"]
    assert list(split["tracks"]) == ["similarity-only", "+query-set", "+procedure-order"]
    assert split["macro"] == split["tracks"]["+query-set"]["macro"]
    assert split["macro"] != split["tracks"]["similarity-only"]["macro"]
    assert list(split["controls"]) == ["random", "whole video", "train mean", "time prior", "oracle"]


def test_one_free_query_has_the_single_query_path_only():
    known = corpus(queries=[Query("hook", "a hook", "free")])
    assert list(run(known)[0].answers) == ["similarity-only"]


def test_a_split_of_one_video_has_no_interval():
    known = corpus()._replace(videos=tuple(video for video in corpus().videos if video.id in {"v0", "v1", "v4", "v8"}))
    curves = [curve for curve in scored(corpus()).curves if curve.video in {"v4", "v8"}]
    split = run(known, LocalisationScores(curves, {}, {}), bootstrap=100)[0].metrics["splits"]["test"]
    assert split["videos"] == 1
    assert split["intervals"] == split["minus_time_prior"] == {}


def test_a_training_video_is_judged_by_the_prior_of_the_others():
    """Its own labels would tell the clock everything: moving them leaves its prior and its mean segment alone."""
    known = corpus(videos=corpus().videos[:4])
    curves = [Curve(video.id, np.arange(60) * 4.0 + 2.0, np.zeros((5, 60)), SECONDS) for video in known.videos]
    moved = known._replace(moments={**known.moments, "v0": {**known.moments["v0"], "first": ((100.0, 220.0),)}})
    found = [
        run(one, LocalisationScores(curves[:1], {}, {}), splits=("train",))[0].metrics["splits"]["train"]["controls"]
        for one in (known, moved)
    ]
    for name in ("time prior", "train mean"):
        assert found[0][name]["mIoU"] > found[1][name]["mIoU"]


def test_intervals_hold_the_value_and_the_difference_to_the_prior_is_paired():
    outcome, _ = run(corpus(), scored(corpus(), strength=4.0))
    split = outcome.metrics["splits"]["test"]
    for key in ("AUROC", "AUPRC", "mAP@0.5", "mIoU"):
        low, high = split["intervals"][key]
        assert low <= split["macro"][key] <= high
    drawn = outcome.replicates["test/similarity-only/AUROC"]
    assert split["intervals"]["AUROC"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
    gap = split["macro"]["AUROC"] - split["controls"]["time prior"]["AUROC"]
    low, high = split["minus_time_prior"]["AUROC"]
    assert low <= gap <= high
    # A score that is no better than noise is below the blind clock for certain.
    assert (
        run(corpus(), scored(corpus(), strength=0.0))[0].metrics["splits"]["test"]["minus_time_prior"]["AUROC"][1] < 0
    )


def test_labels_of_the_test_videos_change_nothing_of_val_and_no_blind_control():
    moved = corpus()
    truth = {f"v{n}": {**moved.moments[f"v{n}"], "first": ((0.0, 8.0),)} for n in SPLITS["test"]}
    plain, other = (
        run_plain()[0].metrics["splits"],
        run(moved._replace(moments={**moved.moments, **truth}))[0].metrics["splits"],
    )
    assert plain["val"] == other["val"]
    assert plain["test"] != other["test"]


def test_phases_and_tools_of_clean_curves_are_recognised_without_a_miss():
    split = run(corpus(), scored(corpus(), strength=1000.0))[0].metrics["splits"]["test"]
    track = split["tracks"]["similarity-only"]
    # Boundaries fall between samples 4 s apart, so that up to two seconds at each are wrong.
    assert track["phases"]["phase/accuracy"] > 0.97
    assert track["tools"]["tool/mAP"] == 1.0
    assert split["macro"]["AUROC"] == 1.0
    assert split["controls"]["oracle"]["mAP@0.5"] == pytest.approx(split["macro"]["mAP@0.5"], abs=0.05)


def test_the_results_say_which_parameters_the_user_set():
    chosen = run_plain()[0].metrics["protocol"]["segments"]
    assert chosen.endswith("defaults, chosen on simulated curves over the phase times of Cholec80 videos 1-40")
    own = run(corpus(), nms_tiou=0.5, query_norm="softmax", levels=7)[0].metrics["protocol"]["segments"]
    assert "set by the user: query_norm, levels, nms_tiou;" in own
    assert all(part in own for part in ("7 levels", "NMS 0.5", "softmax of z / 0.5"))


def test_without_draws_there_are_no_intervals_and_none_are_announced():
    metrics = run(corpus(), bootstrap=0)[0].metrics
    assert metrics["protocol"]["intervals"] == "none"
    assert metrics["splits"]["test"]["intervals"] == {}


def test_the_digest_of_the_truth_changes_with_any_segment_of_its_split():
    moved = corpus()
    truth = {**moved.moments, "v9": {**moved.moments["v9"], "clip": ((160.0, 181.0),)}}
    plain, other = (run_plain()[0].metrics["splits"], run(moved._replace(moments=truth))[0].metrics["splits"])
    assert plain["val"]["truth"] == other["val"]["truth"]
    assert plain["test"]["truth"] != other["test"]["truth"]


def test_prompt_sets_have_a_row_each_with_mean_and_range():
    split = run(corpus(), scored(corpus(), plain=1, other=2))[0].metrics["splits"]["val"]
    rows = split["prompt_sets"]["sets"]
    values = [rows[name]["AUROC"] for name in ("plain", "other")]
    spread = split["prompt_sets"]["spread"]["AUROC"]
    assert (spread["mean"], spread["low"], spread["high"]) == pytest.approx((np.mean(values), min(values), max(values)))


def test_a_split_whose_videos_are_all_missing_stands_there_with_none():
    known = corpus(missing=tuple(Missing(f"v{n}", "val", "no video") for n in SPLITS["val"]))
    known = known._replace(videos=tuple(video for video in known.videos if video.split != "val"))
    found = LocalisationScores(scored(corpus()).curves[4:], {}, {f"v{n}": "no video" for n in SPLITS["val"]})
    split = run(known, found)[0].metrics["splits"]["val"]
    assert split["videos"] == 0
    assert split["skipped"] == {f"v{n}": "no video" for n in SPLITS["val"]}
    assert split["macro"]["AUROC"] is None


def test_videos_without_truth_have_answers_but_no_table():
    known = corpus()._replace(moments={}, videos=tuple(v._replace(split="all") for v in corpus().videos))
    outcome, _ = run(known)
    assert outcome.metrics["splits"] == {}
    assert len(outcome.answers["similarity-only"]) == 10
