"""Small files of ground truth and predictions, and the command that judges them."""

import json

from xclip_module.evaluation.localisation import main

TRUTH = [{"qid": 1, "query": "a clip", "vid": "v", "duration": 60, "relevant_windows": [[0, 10]]}]
ANSWER = [{"qid": 1, "query": "a clip", "vid": "v", "pred_relevant_windows": [[0, 9, 0.5]]}]


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def evaluate(folder, truth, answers, *flags):
    arguments = ["--ground-truth", str(write(folder / "g.jsonl", truth))]
    return main([*arguments, "--predictions", str(write(folder / "p.jsonl", answers)), *flags])
