"""From windows to a fitted head: what cannot be learned, what is chosen on val, and fits that are never lost."""

import json

import numpy as np
import pytest
import torch
from support.probe_factory import QUERIES, fitter_of, random_videos, windows_of

from xclip_module.config import EvalConfig
from xclip_module.errors import ConfigError
from xclip_module.evaluation.summary import summarise
from xclip_module.interface import Curve, Question
from xclip_module.moments.answers import answer
from xclip_module.probe import fit as probe_fit
from xclip_module.probe.fit import draw_videos, learnable, make_head, mean_over_pairs, standardise
from xclip_module.training.linear import fit, make_problem

pytestmark = pytest.mark.usefixtures("one_thread")
# How a head comes to be, where only the windows matter.
QUICK = {"penalty": 1.0}
# And where a sweep of thirty fits is wanted, whatever it finds.
SHORT = {"max_steps": 5}
PHASES, TOOLS = slice(0, 3), slice(3, 5)
TRAIN, VAL = random_videos(2), random_videos(1, split="val", seed=7)


def scores_of(fitted, videos, queries=QUERIES):
    head = make_head(fitted, queries, None, {}, {})
    return torch.cat([head.scores(one.features) for one in videos], dim=1)


def relabelled(videos, change):
    """The same videos with labels that `change` [M, Q] -> [M, Q] has made."""
    return [windows_of(one.video, one.features, change(one.labels.numpy().copy()), split=one.split) for one in videos]


def without(*rows):
    def change(labels):
        labels[:, rows] = False
        return labels

    return change


def always(*rows):
    def change(labels):
        labels[:, rows] = True
        return labels

    return change


def only_first_phase(labels):
    labels[:, PHASES] = [True, False, False]
    return labels


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (without(), [True] * 5),
        (without(4), [True, True, True, True, False]),
        (without(1), [True, False, True, True, True]),
        (always(4), [True, True, True, True, False]),
        (only_first_phase, [False, False, False, True, True]),
        (without(0, 1, 2), [False, False, False, True, True]),
        (without(3, 4), [True, True, True, False, False]),
        (without(0, 1, 2, 3, 4), [False] * 5),
    ],
    ids=[
        *("all", "a tool that never is", "a phase that never is", "a tool that always is", "one phase alone"),
        *("no phase", "no tool", "nothing"),
    ],
)
def test_what_has_no_example_or_no_counterexample_is_not_known_and_the_rest_is_learned(tmp_path, change, known):
    videos = relabelled(random_videos(), change)
    fitted = fitter_of(tmp_path, **QUICK).fit(videos, [])
    assert fitted.known.tolist() == known
    assert [one["known"] for kind in fitted.kinds for one in kind["classes"]] == known
    scores = scores_of(fitted, videos)
    assert torch.isfinite(scores).all()
    assert (scores[~fitted.known] == -100).all()
    assert (scores.std(dim=1)[fitted.known] > 0.1).all()
    assert (scores[fitted.known] > -100).all()
    assert [one["lambda"] for one in fitted.kinds] == [1.0 if any(known[rows]) else None for rows in (PHASES, TOOLS)]


def test_what_nobody_has_annotated_is_not_known(tmp_path):
    videos = [
        windows_of(one.video, one.features, one.labels.numpy(), unknown=("hook", "clipper")) for one in random_videos()
    ]
    fitted = fitter_of(tmp_path, **QUICK).fit(videos, [])
    assert fitted.known.tolist() == [True, True, True, False, False]
    assert (scores_of(fitted, videos)[TOOLS] == -100).all()


def test_a_tool_that_one_video_leaves_open_is_learned_from_the_others_alone(tmp_path):
    videos = random_videos()
    partly = [
        videos[0],
        videos[1],
        windows_of("train2", videos[2].features, videos[2].labels.numpy(), unknown=["hook"]),
    ]
    fitter = fitter_of(tmp_path, **QUICK, balance=False)
    fitted = fitter.fit(partly, [])
    scale = standardise(torch.cat([one.features for one in videos]))
    inputs = (torch.cat([one.features for one in videos[:2]]) - scale.mean) * scale.inverse
    labels = torch.cat([one.labels for one in videos[:2]])[:, 3:4]
    problem = make_problem(inputs, labels, torch.ones_like(labels), is_exclusive=False, is_balanced=False)
    torch.testing.assert_close(fitted.weight[3], fit(problem, 1.0).weight[0], atol=5e-3, rtol=0)


def test_a_class_that_one_video_alone_shows_is_learned(tmp_path):
    videos = random_videos()
    videos[1:] = relabelled(videos[1:], without(0, 4))
    fitted = fitter_of(tmp_path, **QUICK).fit(videos, [])
    assert fitted.known.all()
    counts = {one["name"]: one["videos"] for kind in fitted.kinds for one in kind["classes"]}
    assert counts == {"cutting": 1, "packing": 3, "cleaning": 3, "hook": 3, "clipper": 1}
    own = make_head(fitted, QUERIES, None, {}, {}).scores(videos[0].features)
    for row in (0, 4):
        labels = videos[0].labels[:, row]
        assert own[row, labels].mean() > own[row, ~labels].mean()


@pytest.mark.parametrize("value", [0.0, 7.1, -3e4])
def test_a_constant_feature_has_no_say(tmp_path, value):
    videos = random_videos()
    padded = [
        windows_of(one.video, torch.cat([one.features, torch.full((40, 1), value)], dim=1), one.labels.numpy())
        for one in videos
    ]
    fitted, plain = (fitter_of(tmp_path / str(n), **QUICK).fit(v, []) for n, v in enumerate([padded, videos]))
    assert fitted.scale.inverse[-1] == 0
    torch.testing.assert_close(scores_of(fitted, padded), scores_of(plain, videos), atol=5e-3, rtol=0)
    moved = [one._replace(features=one.features + torch.tensor([0.0, 0, 0, 0, 9])) for one in padded]
    assert torch.equal(scores_of(fitted, moved), scores_of(fitted, padded))


def test_features_that_are_all_constant_give_finite_constant_scores(tmp_path):
    videos = [one._replace(features=torch.full_like(one.features, 2.5)) for one in random_videos()]
    scores = scores_of(fitter_of(tmp_path, **QUICK).fit(videos, []), videos)
    assert torch.isfinite(scores).all()
    assert (scores == scores[:, :1]).all()


def test_standardising_is_numpys():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(40_000, 5)) * [1e-3, 1, 1e3, 0, 0] + [5, 0, -1e3, 0, 0.1]).astype(np.float32)
    scale = standardise(torch.tensor(features))
    mean, deviation = features.astype(np.float64).mean(0), features.astype(np.float64).std(0)
    np.testing.assert_allclose(scale.mean.numpy(), mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scale.inverse.numpy()[:3], 1 / deviation[:3], rtol=1e-6)
    assert scale.inverse.tolist()[3:] == [0, 0]


def test_rows_are_learnable_that_hold_here_and_not_there():
    labels = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]]).bool()
    known = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    assert learnable(labels, known, [0, 1, 2, 3], is_exclusive=False) == [0]
    assert learnable(labels, known, [0, 1, 2, 3], is_exclusive=True) == []
    labels[1] = torch.tensor([False, False, True, False])
    assert learnable(labels, known, [0, 1, 2, 3], is_exclusive=True) == [0, 1, 2]


def test_the_number_that_chooses_is_the_reports():
    """Of curves over videos in which a tool is unknown, absent or always there, too."""
    val = random_videos(4, split="val", seed=3)
    val[1] = windows_of("val1", val[1].features, val[1].labels.numpy(), split="val", unknown=["hook"])
    val[2:3] = relabelled(val[2:3], without(4))
    val[3:4] = relabelled(val[3:4], always(4))
    rng = np.random.default_rng(0)
    curves = [torch.tensor(rng.normal(size=(5, len(one.times))), dtype=torch.float32) for one in val]
    names = [query.name for query in QUERIES]
    truth = {
        one.video: {
            name: [(m, m + 1) for m in np.flatnonzero(one.labels[:, row])]
            for row, name in enumerate(names)
            if one.known[:, row].any()
        }
        for one in val
    }
    questions = [Question(query.name, query.kind) for query in QUERIES]
    answers = [
        answer(
            Curve(one.video, one.times, curve.numpy(), one.duration),
            questions,
            track="similarity-only",
            stride=1.0,
            section=EvalConfig(),
        )
        for one, curve in zip(val, curves, strict=True)
    ]
    macro = summarise(answers, truth, names).macro
    for monitor in ("AUROC", "AUPRC"):
        assert mean_over_pairs(curves, val, range(5), monitor) == pytest.approx(macro[monitor], abs=1e-12)
    some = mean_over_pairs([curve[[4, 0]] for curve in curves], val, [4, 0], "AUPRC")
    rows = summarise(answers, truth, names).queries
    pairs = [(rows["clipper"]["AUPRC"], 3), (rows["cutting"]["AUPRC"], 4)]
    assert some == pytest.approx(sum(value * count for value, count in pairs) / 7, abs=1e-12)
    assert mean_over_pairs([], [], [0], "AUPRC") is None


@pytest.mark.parametrize(
    ("val", "message"),
    [
        ([], "probe.penalty=0: there is no val video to choose one on"),
        (
            relabelled(random_videos(1, split="val"), without(0, 1, 2)),
            "probe.penalty=0: no phase of the training videos happens in a val video",
        ),
        (
            relabelled(random_videos(1, split="val"), without(3, 4)),
            "probe.penalty=0: no tool of the training videos happens in a val video",
        ),
    ],
    ids=["no val", "no phase", "no tool"],
)
def test_without_anything_to_choose_a_penalty_on_the_way_out_is_named(tmp_path, val, message):
    with pytest.raises(ConfigError, match=rf"{message}; try: --probe\.penalty=100"):
        fitter_of(tmp_path, max_steps=3).fit(random_videos(), val)
    assert fitter_of(tmp_path, **QUICK).fit(random_videos(), val).penalties == {"phase": 1.0, "tool": 1.0}


def test_a_kind_without_anything_to_choose_on_takes_the_penalty_given_for_it(tmp_path):
    val = relabelled(VAL, without(3, 4))
    fitted = fitter_of(tmp_path, **SHORT).fit(TRAIN, val, otherwise={"phase": 3.0, "tool": 7.0})
    assert fitted.penalties["tool"] == 7.0
    assert fitted.penalties["phase"] != 3.0
    direct = fitter_of(tmp_path, penalty=7.0, **SHORT).fit(TRAIN, val)
    assert torch.equal(fitted.weight[TOOLS], direct.weight[TOOLS])


def test_what_holds_all_the_time_in_val_cannot_choose_by_auroc(tmp_path):
    val = relabelled(random_videos(1, split="val"), lambda labels: always(3, 4)(only_first_phase(labels)))
    with pytest.raises(
        ConfigError, match="probe.penalty=0: no phase of the training videos begins or ends in a val video"
    ):
        fitter_of(tmp_path, monitor="AUROC", max_steps=3).fit(TRAIN, val)
    fitted = fitter_of(tmp_path, max_steps=3).fit(TRAIN, val, otherwise={})
    assert [one["best"] for one in fitted.kinds] == [1.0, 1.0]


def test_the_penalty_is_the_one_that_is_best_on_val(tmp_path):
    train, val = random_videos(1, size=40, width=12), random_videos(1, split="val", seed=5, width=12)
    fitted = fitter_of(tmp_path).fit(train, val)
    for kind, rows in zip(fitted.kinds, (PHASES, TOOLS), strict=True):
        best = max(kind["sweep"], key=lambda row: (row["val"], row["lambda"]))
        assert (kind["lambda"], kind["best"]) == (best["lambda"], best["val"])
        curves = [make_head(fitted, QUERIES, None, {}, {}).scores(one.features)[rows] for one in val]
        rows = range(5)[rows]
        assert mean_over_pairs(curves, val, rows, "AUPRC") == pytest.approx(best["val"], abs=1e-9)
        assert len({row["val"] for row in kind["sweep"]}) > 3


def test_a_refit_is_the_fit_to_train_and_val_with_the_penalty_chosen(tmp_path):
    train, val = random_videos(), random_videos(1, split="val", seed=7)
    fitter = fitter_of(tmp_path)
    chosen, again = (fitter.fit(train, val, more=more, otherwise={}) for more in ((), val))
    assert again.penalties == chosen.penalties
    assert not torch.equal(again.weight, chosen.weight)
    assert torch.equal(again.scale.mean, standardise(torch.cat([one.features for one in (*train, *val)])).mean)
    for kind, rows in (("phase", PHASES), ("tool", TOOLS)):
        direct = fitter_of(tmp_path, penalty=chosen.penalties[kind]).fit([*train, *val], [], otherwise={})
        torch.testing.assert_close(again.weight[rows], direct.weight[rows], atol=1e-6, rtol=0)
        torch.testing.assert_close(again.bias[rows], direct.bias[rows], atol=1e-6, rtol=0)


def test_a_refit_leaves_unknown_what_training_did_not_show(tmp_path):
    train, val = relabelled(random_videos(), without(4)), random_videos(2, split="val", seed=7)
    fitter = fitter_of(tmp_path, **QUICK)
    assert not fitter.fit(train, val).known[4]
    again = fitter.fit(train, val, more=val)
    assert again.known.tolist() == [True, True, True, True, False]
    assert not again.weight[4].any()


class Counted:
    """`training.linear.fit` that counts, and is cut at one of its calls."""

    def __init__(self, monkeypatch, *, cut_at=0):
        self.calls, self.cut_at = 0, cut_at
        monkeypatch.setattr(probe_fit, "fit", self)

    def __call__(self, *arguments, **options):
        self.calls += 1
        if self.calls == self.cut_at:
            raise KeyboardInterrupt
        return fit(*arguments, **options)


def assert_same(first, second):
    for name in ("weight", "bias", "known"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert torch.equal(torch.stack(first.scale), torch.stack(second.scale))
    assert json.dumps(first.kinds) == json.dumps(second.kinds)


def test_a_fit_is_never_made_twice_comes_back_bit_for_bit_and_is_not_taken_for_another(tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    first = fitter_of(tmp_path, **SHORT).fit(TRAIN, VAL)
    made = counted.calls
    assert 20 <= made == sum(len(kind["sweep"]) for kind in first.kinds)
    again = fitter_of(tmp_path, **SHORT).fit(TRAIN, VAL)
    assert counted.calls == made
    assert_same(first, again)
    # A sweep fits penalty 1, too, but from its neighbour's end.
    given = [fitter_of(folder, penalty=1.0, **SHORT) for folder in (tmp_path, tmp_path / "fresh")]
    assert_same(*(fitter.fit(TRAIN, VAL) for fitter in given))


def test_a_sweep_cut_anywhere_goes_on_where_it_was_and_ends_the_same(tmp_path, monkeypatch):
    """Three times in a row: in its first fit, its fifth, its twentieth."""
    whole = Counted(monkeypatch)
    expected = fitter_of(tmp_path / "whole", **SHORT).fit(TRAIN, VAL, otherwise={})
    for call in (1, 5, 16):
        Counted(monkeypatch, cut_at=call)
        with pytest.raises(KeyboardInterrupt):
            fitter_of(tmp_path / "cut", **SHORT).fit(TRAIN, VAL, otherwise={})
    rest = Counted(monkeypatch)
    found = fitter_of(tmp_path / "cut", **SHORT).fit(TRAIN, VAL, otherwise={})
    assert rest.calls == whole.calls - 4 - 15
    assert_same(found, expected)


def flipped(videos):
    labels = videos[0].labels.numpy().copy()
    labels[0, 3] ^= True
    return [windows_of(videos[0].video, videos[0].features, labels, split=videos[0].split), *videos[1:]]


def nudged(videos):
    features = videos[0].features.clone()
    features[0, 0] += 0.5
    return [windows_of(videos[0].video, features, videos[0].labels.numpy(), split=videos[0].split), *videos[1:]]


OTHER_KINDS = (*QUERIES[:2], *(query._replace(kind="tool") for query in QUERIES[2:]))


@pytest.mark.parametrize(
    ("train", "val", "options"),
    [
        (flipped(TRAIN), VAL, {}),
        (nudged(TRAIN), VAL, {}),
        (TRAIN[:1], VAL, {}),
        (TRAIN, flipped(VAL), {}),
        (TRAIN, nudged(VAL), {}),
        (TRAIN, VAL, {"balance": False}),
        (TRAIN, VAL, {"monitor": "AUROC"}),
        (TRAIN, VAL, {"max_steps": 9}),
        (TRAIN, VAL, {"penalty": 2.0}),
        (TRAIN, VAL, {"queries": OTHER_KINDS}),
    ],
    ids=[
        *("a label", "a feature", "videos", "a val label", "a val feature", "balance", "monitor", "max_steps"),
        *("penalty", "kinds of queries"),
    ],
)
def test_fits_of_other_labels_features_or_settings_are_never_served(tmp_path, train, val, options):
    store = tmp_path / "used"
    before = fitter_of(store, **QUICK).fit(TRAIN, VAL)
    found = fitter_of(store, **{**QUICK, **options}).fit(train, val)
    fresh = fitter_of(tmp_path / "fresh", **{**QUICK, **options}).fit(train, val)
    assert_same(found, fresh)
    assert json.dumps(found.kinds) != json.dumps(before.kinds)


def test_draws_are_different_videos_and_the_first_ones_the_same_however_many_are_asked_for():
    train = random_videos(5, size=3)
    order = [one.video for one in train]

    def drawn(seed, count, draws):
        np.random.seed(draws)  # noqa: NPY002 - whoever draws from the global generator must not matter
        return [tuple(one.video for one in found) for found in draw_videos(train, count, seed=seed, draws=draws)]

    few, many = drawn(1, 2, 3), drawn(1, 2, 100)
    assert many[:3] == few
    assert len(many) == len(set(many)) == 10  # of five two
    assert all(list(found) == sorted(found, key=order.index) for found in many)
    assert drawn(2, 2, 3) != few
    assert drawn(3, 5, 4) == [tuple(order)]
