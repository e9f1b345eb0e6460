"""A run of made-up scores with all its files, and how to read its pages."""

import csv
import html.parser
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from xclip_module.config import Config
from xclip_module.interface import Corpus, Curve, Missing, Query, Sampling, Video
from xclip_module.reporting import report
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.tasks.localisation.judge import judge
from xclip_module.tasks.localisation.load import LocalisationData, scored_splits
from xclip_module.tasks.localisation.score import LocalisationScores
from xclip_module.tasks.localisation.scorers import SentenceScorer
from xclip_module.tasks.localisation.windows import WindowEncoder
from xclip_module.tasks.localisation.write import write
from xclip_module.tasks.weights import Origin

SECONDS, STRIDE = 60.0, 2.0
EVIL = "<script>alert('&')</script>"


LONG = "the surgeon carefully separates the gallbladder from the liver bed while the assistant retracts $5 or $6"


QUERIES = (
    Query("Preparation", "trocars are placed", "phase"),
    Query("Dissection", LONG, "phase"),
    Query(EVIL, EVIL, "phase"),
    Query("Hook", "a hook", "tool"),
    Query("Bag", "a bag", "tool"),
)


def corpus():
    """Two training, three val, three test videos; `Bag` happens in no test video."""
    rng = np.random.default_rng(1)
    videos, moments = [], {}
    for number, split in enumerate(["train"] * 2 + ["val"] * 3 + ["test"] * 3):
        name = f"video{number}" if number else "a<b>&c"
        first, second = (float(cut) for cut in np.sort(rng.uniform(10, 50, 2)))
        spans = [((0.0, first),), ((first, second),), ((second, SECONDS),), ((5.0, 12.0), (30.0, 44.0))]
        bag = () if split == "test" else ((20.0, 30.0),)
        moments[name] = {query.name: found for query, found in zip(QUERIES, [*spans, bag], strict=True)}
        videos.append(Video(name, Path(name), split, SECONDS, 2.0))
    missing = (Missing("video99", "test", f"no file {EVIL}"),)
    return Corpus("made up", tuple(videos), QUERIES, moments, "made up, split 0123456789ab, prompts x.csv", missing)


def curves(known, seed=0):
    rng = np.random.default_rng(seed)
    times = np.arange(STRIDE / 2, SECONDS, STRIDE)
    for video in known.videos:
        if video.split != "train":
            yield Curve(video.id, times, rng.normal(size=(len(known.queries), len(times))).astype(np.float32), SECONDS)


class Made:
    """A run of made-up scores, in its folder."""

    def __init__(self, folder, known=None, seed=0, track="similarity-only"):
        known = known or corpus()
        config = Config()
        self.config = replace(config, eval=replace(config.eval, track=track, bootstrap=50))
        model = SimpleNamespace(
            protocol="tiny",
            digest=lambda: "d" * 32,
            stored_digest=lambda: "d" * 32,
            picture=SimpleNamespace(size=32),
        )
        self.corpus, self.folder = known, folder
        self.encoder = WindowEncoder(model, Sampling(4.0, 4, STRIDE), "fp32")
        scores = LocalisationScores(list(curves(known, seed)), {}, {one.id: one.why for one in known.missing})
        self.results = self.judge(scores)
        self.metrics = self.results.metrics
        run = run_in(folder)
        run.environment = f"gpu {EVIL}"
        folder.mkdir()
        run.write_json("config.json", {"run": {"seed": 42}})
        run.write_json("environment.json", {"commit": "abc"})
        self.write(scores, self.results, run)
        self.page = (folder / "report.html").read_text()

    def judge(self, scores, training=None):
        """The results of these scores by random weights, or by those after a training."""
        scorer = SentenceScorer(self.encoder, None, {}, True, Origin(training))
        data = LocalisationData(self.corpus, scored_splits(self.config.data, self.corpus))
        weights, crop, seed = self.config.model.weights, self.config.data.crop, self.config.run.seed
        return judge(data, scorer, scores, self.config.eval, weights=weights, crop=crop, seed=seed)

    def write(self, scores, results, run, data=None):
        """All files of a run."""
        data = data or self.config.data
        write(self.corpus, scores, results, run, data=data, evaluation=self.config.eval)


def run_in(folder):
    """A run of one process."""
    return Run(folder, World(0, 1, torch.device("cpu")), is_terminal=False)


class Rows(html.parser.HTMLParser):
    """Every row of every table as the texts of its cells, without the small print."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.depth, self.small = [], False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self.depth = True
        self.small |= tag == "small"

    def handle_endtag(self, tag):
        self.depth &= tag not in ("th", "td")
        self.small &= tag != "small"

    def handle_data(self, data):
        if self.depth and not self.small:
            self.rows[-1][-1] += data

    def starting(self, label):
        return [row[1:] for row in self.rows if row and row[0] == label]


def percent(value):
    return "–" if value is None else f"{100 * value:.1f}"


def section(page, split):
    """The part of the page that belongs to one split."""
    return page.split(f'<h2 id="{split}">')[1].split("<h2 ")[0]


def compare(*folders, output):
    return report.main([*map(str, folders), "--output", str(output)])


def copy_of(run, folder, *, change=lambda metrics: None):
    folder.mkdir(parents=True)
    for name in ("bootstrap.npz", "config.json", "environment.json"):
        (folder / name).write_bytes((run.folder / name).read_bytes())
    metrics = json.loads((run.folder / "metrics.json").read_text())
    change(metrics)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
