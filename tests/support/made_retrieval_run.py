"""The metrics.json of a made-up retrieval run."""

import numpy as np

from xclip_module.evaluation.retrieval import chance
from xclip_module.reporting.training_facts import RETRIEVAL

KEYS = [column.key for column in RETRIEVAL]
VALUES = dict(zip(KEYS, (0.431, 0.704, 0.808, 2.0, 16.25, 0.427, 0.705, 0.812, 2.0, 12.4), strict=True))
CHANCE = chance(np.arange(1000), 1000)


def metrics(**changes):
    split = {
        **{"texts": 1000, "videos": 1000, "of_texts": 1000, "of_videos": 1000},
        **{"metrics": VALUES, "chance": CHANCE, "two_stage": None},
        **changes.pop("split", {}),
    }
    found = {
        "kind": "retrieval",
        "title": "Retrieval: msrvtt-9k",
        "untrained": False,
        "protocol": {"data": "msrvtt-9k test, 0123456789ab", "weights": "w (abc)", "words": 32, "v2t": "best-caption"},
        "benchmark": "msrvtt-9k",
        "skipped": {},
        "splits": {"test": split},
    }
    return {**found, **changes}
