"""Windows of made-up videos for the tests of the linear probe."""

import numpy as np
import torch

from xclip_module.config import ProbeConfig
from xclip_module.features.store import FeatureStore
from xclip_module.interface import Corpus, Query, Video
from xclip_module.probe.fit import Fitter
from xclip_module.probe.windows import make_windows

QUERIES = (
    *(Query(name, f"the phase of {name}", "phase") for name in ("cutting", "packing", "cleaning")),
    *(Query(name, f"a {name} is in use", "tool") for name in ("hook", "clipper")),
)


def windows_of(video, features, labels, *, split="train", queries=QUERIES, unknown=()):
    """Windows of one second each. labels: [M, Q] bool.  unknown: names of queries nobody has annotated."""
    truth = {query.name: runs(labels[:, row]) for row, query in enumerate(queries) if query.name not in unknown}
    corpus = Corpus("made", (), tuple(queries), {video: truth}, "")
    features = torch.as_tensor(np.asarray(features), dtype=torch.float32)
    times = np.arange(len(labels)) + 0.5
    return make_windows(Video(video, None, split), corpus, times, float(len(labels)), features)


def runs(holds):
    """The segments in which it holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]]).astype(int)))
    return tuple((float(start), float(end)) for start, end in edges.reshape(-1, 2))


def random_labels(count, rng, *, phases=3, tools=2):
    """One phase in every window and each tool in some: [M, Q] bool."""
    order = np.sort(rng.integers(phases, size=count))
    return np.concatenate([order[:, None] == np.arange(phases), rng.random((count, tools)) < 0.4], axis=1)


def random_videos(count=3, *, size=40, width=4, seed=0, split="train", queries=QUERIES):
    """Videos whose features show their labels, through noise."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(5, width))
    found = []
    for number in range(count):
        labels = random_labels(size, rng)
        features = labels @ mixing + rng.normal(size=(size, width))
        found.append(windows_of(f"{split}{number}", features, labels, split=split, queries=queries))
    return found


def fitter_of(folder, *, queries=QUERIES, **section):
    """A fitter with this probe section and a store in this folder."""
    return Fitter(ProbeConfig(**section), tuple(queries), FeatureStore(folder))
