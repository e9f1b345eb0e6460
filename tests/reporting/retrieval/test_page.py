"""The report of a retrieval run says its numbers and what they are worth; foreign text stays text."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from support.made_retrieval_run import KEYS, VALUES, metrics
from support.made_run import EVIL, Rows, percent, section

from xclip_module.evaluation.retrieval import ANY_CAPTION, chance, retrieval_metrics
from xclip_module.reporting.chart import Chart
from xclip_module.reporting.retrieval.page import Hit, TopVideo, retrieval_html, retrieval_markdown
from xclip_module.reporting.retrieval.published import MARK, published
from xclip_module.reporting.training_picture import training_picture as picture_of_training
from xclip_module.tasks.retrieval.pictures import retrieval_pictures


def training(**changes):
    checks = [{"step": step, **{key: VALUES[key] + step / 1000 for key in KEYS}} for step in (0, 20, 40)]
    checks[1]["t2v/R@1"] = 0.5
    found = {
        **{"weights": "w", "clips": 9000, "videos": 9000, "steps": 40, "best_step": 20, "monitor": "t2v/R@1"},
        **{"chosen": "best", "validated_on": "test (the released code's choice: this set has no val split)"},
        "curve": [{"step": step, "loss": 3.0, "floor": 0.0, "lr": 1e-4, "grad_norm": 1.0} for step in (10, 30)],
        "validations": checks,
    }
    return {**found, **changes}


def page_of(known, *, drawn=(), hits=None, training_picture=None):
    parts = {"hits": hits or {}, "environment": "gpu"}
    return retrieval_html(known, pictures=drawn, training_picture=training_picture, **parts)


def text_of(known, hits=None):
    return retrieval_markdown(known, pictures=["pictures/recall_test.svg"], hits=hits or {}, environment="gpu")


def shown(values, keys):
    return [f"{values[key]:.1f}" if key.endswith("nR") or key.endswith("dR") else percent(values[key]) for key in keys]


# Numbers --------------------------------------------------------------------------------------------------------------


def test_the_headline_holds_both_directions_with_chance_below_each():
    table = Rows(section(page_of(metrics()), "test"))
    assert table.starting("text → video") == [["43.1", "70.4", "80.8", "2.0", "16.2"]]
    assert table.starting("chance, text → video") == [["0.1", "0.5", "1.0", "500.5", "500.5"]]
    assert table.starting("video → text") == [["42.7", "70.5", "81.2", "2.0", "12.4"]]
    labels = [row[0] for row in table.rows]
    assert labels == ["direction", "text → video", "chance, text → video", "video → text", "chance, video → text"]
    line = "| text → video (over 1000 texts, each among 1000 videos) | 43.1 | 70.4 | 80.8 | 2.0 | 16.2 |"
    assert line in text_of(metrics())
    assert "Of 100 texts, 43 find their own video first and 81 among the first ten (0.1 and 1 by chance)" in page_of(
        metrics()
    )


def test_queries_that_were_left_out_are_said_loudly():
    partial = metrics(split={"texts": 998, "videos": 999}, skipped={"video7": f"no file {EVIL}"})
    for found in (page_of(partial), text_of(partial)):
        assert "over 998 of 1000 texts, each among 999 videos" in found
        assert "over 999 of 1000 videos" in found
        assert "cannot be compared with numbers of the whole split" in found
        assert "video7: no file" in found
        assert "<script" not in found
    assert page_of(partial).index('class="warn"') < page_of(partial).index("<dl>")
    assert "w (abc); over 998 of 1000 texts, 999 of 1000 videos" in section(page_of(partial), "published")
    for found in (page_of(metrics()), text_of(metrics())):
        assert "cannot be compared" not in found
        assert "eft out" not in found


def test_many_videos_that_were_left_out_are_folded():
    many = page_of(metrics(skipped={f"video{number}": "no file" for number in range(300)}))
    assert "<details><summary>300 videos</summary>" in many
    assert "video299: no file" in many


def test_the_papers_numbers_stand_below_ours_and_are_marked_as_theirs():
    part = section(page_of(metrics()), "published")
    assert Rows(part).starting("this run, test") == [shown(VALUES, KEYS)]
    for row in published("msrvtt-9k"):
        expected = [percent(row.values.get(key)) if "R@" in key else f"{row.values.get(key, 0):.1f}" for key in KEYS]
        if row.method != "CLIP4Clip meanP, MMAction2":
            assert Rows(part).starting(f"{row.method}, {row.backbone}") == [expected]
        assert row.source in part
    assert part.count(MARK) == len(published("msrvtt-9k")) + 1
    assert 'id="published"' not in page_of(metrics(benchmark=""))
    assert "Published, not ours" not in text_of(metrics(benchmark=""))


def test_activitynet_is_compared_on_val_and_with_what_the_papers_have():
    whole = metrics()["splits"]["test"]
    known = metrics(benchmark="activitynet", splits={"val": whole})
    keys = [f"{side}/{key}" for side in ("t2v", "v2t") for key in ("R@1", "R@5", "MnR")]
    assert Rows(section(page_of(known), "published")).starting("this run, val") == [shown(VALUES, keys)]


def test_what_is_not_known_is_a_dash():
    bare = metrics(split={"metrics": {**VALUES, "t2v/R@1": None, "v2t/MnR": None}})
    assert Rows(section(page_of(bare), "test")).starting("text → video")[0][0] == "–"
    assert Rows(section(page_of(bare), "test")).starting("video → text")[0][-1] == "–"
    assert "Of 100 texts, – find" in page_of(bare)
    assert "two stages" not in page_of(bare)
    assert 'id="training"' not in page_of(bare)


def test_a_search_in_two_stages_says_what_it_loses():
    facts = {"keep": 100, "sampled_texts": 200, "recall@1": 0.985, "recall@10": 0.934}
    for found in (page_of(metrics(split={"two_stage": facts})), text_of(metrics(split={"two_stage": facts}))):
        for words in ("keeps 100 candidates", "On 200 texts", "98.5 % of the first", "93.4 % of its first ten"):
            assert words in found


def test_pictures_stand_in_the_section_of_their_split():
    names = [f"{kind}_{split}" for split in ("val", "test") for kind in ("recall", "ranks")]
    drawn = [Chart(name, "title", b"<svg/>", {f"{name}.csv": ""}) for name in names]
    whole = metrics()["splits"]["test"]
    page = page_of(metrics(splits={"val": whole, "test": whole}), drawn=drawn)
    for split in ("val", "test"):
        files = re.findall(r"<code>pictures/(.*?)</code>", section(page, split))
        assert files == [f"recall_{split}.csv", f"ranks_{split}.csv"]
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


@pytest.mark.parametrize("protocol", ["best-caption", ANY_CAPTION])
def test_the_pictures_hold_the_metrics_of_the_table(protocol):
    rng = np.random.default_rng(0)
    owner = np.arange(60) % 20
    similarity = rng.normal(size=(60, 20)) + 2 * (owner[:, None] == np.arange(20))
    expected = retrieval_metrics(similarity, owner, protocol=protocol)
    by_chance = chance(owner, 20, protocol=protocol)
    recall, ranks = retrieval_pictures(similarity, owner, "test", protocol=protocol)
    lines = recall.csv["recall_test.csv"].splitlines()[1:]
    found = {(way, int(k)): (float(value), float(level)) for way, k, value, level in (row.split(",") for row in lines)}
    for way in ("t2v", "v2t"):
        for k in (1, 5, 10):
            values = expected[f"{way}/R@{k}"], by_chance[f"{way}/R@{k}"]
            assert found[way, k] == pytest.approx(values, rel=1e-4)
    candidates = {"best-caption": 20, ANY_CAPTION: 60}[protocol]
    assert max(k for way, k in found if way == "v2t") == candidates
    assert [recall.name, ranks.name] == ["recall_test", "ranks_test"]
    assert "60 texts, 20 videos" in ranks.title


# Queries --------------------------------------------------------------------------------------------------------------


def jpeg(shade):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def test_queries_are_shown_with_their_answers_and_the_own_video_is_marked():
    found = [TopVideo("videoA", 0.5, False, jpeg(9)), TopVideo(f"own{EVIL}", 0.25, True, b"")]
    hits = {
        "worst": [Hit(f"a {EVIL} man", "video7", 57, found[:1])],
        "best": [Hit("a dog", f"own{EVIL}", 2, found)],
    }
    page, text = page_of(metrics(), hits=hits), text_of(metrics(), hits=hits)
    assert "Its own video, video7, has rank 57 and is not among these." in page
    assert page.index("Worst queries") < page.index("Best queries")
    own = page.split('<li class="own">')[1].split("</li>")[0]
    assert "own video, rank 2" in own
    assert "no picture" in own
    assert page.count('class="own"') == 1
    assert base64.b64encode(jpeg(9)).decode() in page
    assert "<script" not in page
    assert "<script" not in text
    assert "video7 has rank 57; first is videoA" in text
    assert "Best queries" not in page_of(metrics(), hits={"worst": hits["worst"], "best": []})
    assert "no picture" not in page_of(metrics(), hits={"best": [Hit("a dog", "b", 1, found[1:])]})


# Training -------------------------------------------------------------------------------------------------------------


def test_last_and_best_step_are_both_reported_and_that_the_reported_split_chose():
    known = metrics(training=training())
    drawn = picture_of_training(known)
    page, text = page_of(known, training_picture=drawn), text_of(known)
    rows = Rows(section(page, "training"))
    assert rows.starting("last, step 40") == [shown(training()["validations"][2], KEYS)]
    assert rows.starting("best, step 20") == [shown(training()["validations"][1], KEYS)]
    assert rows.starting("step 0") == [shown(training()["validations"][0], KEYS)]
    for found in (page, text):
        assert "The best step was picked on test, the very split that is reported here" in found
        assert "Test t2v/R@1 was 43.1 % before training and 50.0 % at step 20" in found
    assert page.index("was picked on test") < page.index("<dl>")
    svg = drawn.svg.decode()
    for words in ("t2v/R@1 (%), chose the step", "43.1 → 50.0", "t2v/MdR, rank", "16.2 → 16.3", "test before training"):
        assert words in svg
    assert "Validation on test, 1000 videos" in svg
    assert "v2t" not in svg
    head, first, *_ = drawn.csv["training.validations.csv"].splitlines()
    assert head.split(",") == ["step", *KEYS]
    assert float(first.split(",")[1]) == 0.431


def test_a_val_split_that_chose_is_no_warning():
    whole = metrics()["splits"]["test"]
    known = metrics(splits={"val": whole, "test": whole}, training=training(validated_on="val"))
    for found in (page_of(known), text_of(known)):
        assert "was picked on" not in found
        assert "val chose the step, so that its numbers are optimistic; test was looked at once" in found
    alone = metrics(training=training(validated_on="val"))
    assert "val chose the step; test was looked at once" in page_of(alone)


def test_a_training_that_kept_its_last_step():
    last = metrics(training=training(chosen="last (no val split)", best_step=40))
    assert "No split chose the weights" in page_of(last)
    assert "The best step beside it was picked on test, the very split that is reported" in page_of(last)
    assert 'class="warn"' not in page_of(last)
    rows = re.findall(r"<th>((?:last|best).*?)<small>(.*?)</small>", section(page_of(last), "training"))
    assert rows == [("last, step 40", "kept"), ("best, step 20", "by test t2v/R@1")]
    both = metrics(training=training(best_step=40))
    assert "but it is the last one" in page_of(both)
    assert Rows(section(page_of(both), "training")).starting("last and best, step 40")
    none = metrics(training=training(chosen="last (no val split)", best_step=40, validations=[]))
    assert "best, step" not in page_of(none)
    assert "was picked" not in page_of(none)
