"""Pictures of videos show the frame that they should; one's own recordings are ranked by their best moments."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.barcode import read_number, truncate, write_video
from support.made_run import EVIL, Made, corpus, run_in, section

from xclip_module.interface import Answer, FrameFolder, Moment, Video
from xclip_module.reporting.chart import Chart
from xclip_module.reporting.page import MOST_CARDS, Pictures, RankedVideo, html_report
from xclip_module.run.folder import Run
from xclip_module.tasks.localisation.score import LocalisationScores
from xclip_module.tasks.localisation.write import ranked_videos, ranking_csv, with_thumbnails
from xclip_module.video.thumbnails import thumbnails

# Thumbnails -----------------------------------------------------------------------------------------------------------


def opened(picture):
    return np.array(Image.open(io.BytesIO(picture)).convert("RGB"))


@pytest.mark.parametrize("size", [(96, 64), (64, 96)])
def test_a_thumbnail_shows_the_frame_of_its_time_whole_and_in_its_own_proportions(tmp_path, size):
    video = write_video(tmp_path / "a.mp4", frames=range(3000, 3050), rate=10, size=size)
    found = [opened(one) for one in thumbnails(video, [3.05, 0.0, 4.9, 3.05], side=120)]
    assert [one.shape for one in found] == [(120, 120, 3)] * 4
    for one, number in zip(found, (3030, 3000, 3049, 3030), strict=True):
        shown, around = (one[20:100], one[:18]) if size[0] > size[1] else (one[:, 20:100], one[:, :18])
        assert read_number(shown) == number
        assert around.max() < 24


def test_thumbnails_of_a_folder_of_pictures(tmp_path):
    files = []
    for number, shade in enumerate((40, 200)):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 20), (shade,) * 3).save(files[-1])
    folder = FrameFolder(tmp_path, tuple(files), np.array([0.0, 1.0]), 2.0)
    assert [int(opened(one).mean().round()) for one in thumbnails(folder, [1.5, 0.5])] == [200, 40]
    assert thumbnails(folder, []) == []


def test_what_cannot_be_read_has_no_thumbnail_and_a_warning(tmp_path, caplog):
    video = write_video(tmp_path / "a.mp4", frames=50)
    broken = truncate(write_video(tmp_path / "b.mp4", frames=50), 0.6)
    folder = FrameFolder(tmp_path, (tmp_path / "1.png",), np.array([0.0]), 1.0)
    for source in (tmp_path / "none.mp4", broken, folder):
        caplog.clear()
        assert thumbnails(source, [0.5]) == []
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "no thumbnail" in caplog.text
    assert len(thumbnails(video, [0.5])) == 1


# Search over one's own folder -----------------------------------------------------------------------------------------


def answer(video, **moments):
    """A minute, whose curves have raw scores a tenth as high as how far the moments stand out, plus one."""
    found = {name: [Moment(*one) for one in own] for name, own in moments.items()}
    times, curves = np.arange(60) + 0.5, []
    for own in found.values():
        inside = [np.where((one.start <= times) & (times < one.end), 1 + one.score / 10, 0) for one in own]
        curves.append(np.max(inside, axis=0) if inside else np.zeros(60))
    return Answer(video, times, 60.0, np.stack(curves), found)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Three recordings of a minute, a frame a second, the last one broken; b and c tie for the hook."""
    folder = tmp_path_factory.mktemp("own")
    paths = [
        write_video(folder / f"{name}.mp4", frames=range(n, n + 60), rate=1) for name, n in (("a", 1000), ("b", 2000))
    ]
    paths.append(folder / "c.mp4")
    paths[-1].write_bytes(b"no video")
    known = corpus()._replace(videos=tuple(Video(path.name, path, "all") for path in paths), moments={}, missing=())
    known = known._replace(queries=tuple(query for query in known.queries if query.name in ("Hook", "Bag")))
    answers = [
        answer("c.mp4", Hook=[(0, 2, 1.5)], Bag=[]),
        answer("a.mp4", Hook=[(10, 20, 0.5), (30, 40, 2.5)], Bag=[(0, 8, 3.0)]),
        answer("b.mp4", Hook=[(50, 60, 1.5), (0, 4, 1.0)], Bag=[(20, 31, 4.0)]),
    ]
    return answers, known


def test_videos_are_ranked_by_their_best_moment(own):
    """By its raw scores. The hook by hand: a has 1.25 (not 1.05), b and c tie at 1.15; c has no bag."""
    ranked = ranked_videos(*own)
    assert {query: [tuple(row[:4]) for row in rows] for query, rows in ranked.items()} == {
        "a hook": [("a.mp4", 1.25, 30, 40), ("b.mp4", 1.15, 50, 60), ("c.mp4", 1.15, 0, 2)],
        "a bag": [("b.mp4", 1.4, 20, 31), ("a.mp4", 1.3, 0, 8), ("c.mp4", 0.0, 0, 60)],
    }
    assert ranking_csv(ranked).splitlines() == [
        "query,rank,video,score,start,end",
        *("a hook,1,a.mp4,1.25,30,40", "a hook,2,b.mp4,1.15,50,60", "a hook,3,c.mp4,1.15,0,2"),
        *("a bag,1,b.mp4,1.4,20,31", "a bag,2,a.mp4,1.3,0,8", "a bag,3,c.mp4,0,0,60"),
    ]


def test_the_picture_of_a_ranked_video_is_the_middle_of_its_moment(own):
    answers, known = own
    ranked = with_thumbnails(ranked_videos(answers, known), known, timeout_seconds=60)
    hook, bag = ([row.thumbnail for row in ranked[text]] for text in ("a hook", "a bag"))
    assert [read_number(opened(one)[27:133]) for one in (*hook[:2], *bag[:2])] == [1035, 2055, 2025, 1004]
    assert (hook[2], bag[2]) == (b"", b"")  # c is broken


def test_the_page_shows_the_videos_in_order(own):
    answers, known = own
    rows = [RankedVideo(f"v{place}{EVIL}", 9.0 - place, 60.0 + place, 65.0, b"") for place in range(30)]
    ranked = {"a hook": ranked_videos(answers, known)["a hook"], f"a bag {EVIL}": rows}
    drawn = Pictures([], {}, {f"video{number}": Chart("ribbon", "title", b"<svg/>", {}) for number in range(31)})
    bare = {"title": "t", "untrained": False, "protocol": {}, "skipped": {}, "splits": {}}
    parts = {"texts": {}, "pictures": drawn, "best": {}, "environment": "", "replicates": {}}
    part = section(html_report(bare, ranked=ranked, **parts), "ranked")
    assert "<script" not in part
    names = re.findall(r"<li>\s*(.*?)<small>(.*?)</small><small>(.*?)</small>", part)
    assert names[:3] == [
        ("a.mp4", "1. score 1.25", "00:30 – 00:40"),
        ("b.mp4", "2. score 1.15", "00:50 – 01:00"),
        ("c.mp4", "3. score 1.15", "00:00 – 00:02"),
    ]
    assert len(names) == 3 + MOST_CARDS
    assert f"The first {MOST_CARDS} of 30 videos." in part
    assert 'id="ranked"' not in html_report(bare, **parts)


def test_a_run_over_a_folder_of_recordings_writes_the_order(own, tmp_path, monkeypatch):
    known = own[1]
    made = Made(tmp_path / "run", known)
    assert not (made.folder / "ranking.csv").exists()
    written = {}
    monkeypatch.setattr(Run, "write_text", lambda self, name, text: written.update({name: text}))
    data = replace(made.config.data, video=str(tmp_path))
    made.write(LocalisationScores([], {}, {}), made.results, run_in(made.folder), data=data)
    rows = list(csv.DictReader(io.StringIO(written["ranking.csv"])))
    for text in ("a hook", "a bag"):
        scores = [float(row["score"]) for row in rows if row["query"] == text]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
    assert written["report.html"].count("data:image/jpeg;base64,") == 4
    assert "Videos ranked" in written["report.html"]
