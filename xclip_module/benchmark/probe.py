"""The linear probe at the size of Cholec80: a whole sweep, and one fit beside scikit-learn's.

N windows, D width, K phases, Q queries.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from xclip_module.benchmark.meter import Cost, apart, measured, table
from xclip_module.config import ProbeConfig
from xclip_module.datasets.cholec80.corpus import PHASES, TOOLS
from xclip_module.features.store import FeatureStore
from xclip_module.interface import Query
from xclip_module.probe.fit import Fitter
from xclip_module.probe.windows import Windows
from xclip_module.training.linear import fit, make_problem

# Seconds of video that Cholec80 has, as a sample a second, and how they lie in 80 videos.
_WINDOWS, _VIDEOS, _VAL_VIDEOS = 184_498, 80, 8
# Windows of the fit that scikit-learn is compared in.
_COMPARED, _WIDTH = 20_000, 512
_THEIRS = "scikit-learn, lbfgs"
_QUERIES = tuple(Query(name, name, kind) for names, kind in ((PHASES, "phase"), (TOOLS, "tool")) for name in names)
# Roughly how often each tool of Cholec80 is in view.
_TOOL_SHARES = (0.55, 0.05, 0.55, 0.02, 0.03, 0.05, 0.06)


def run(device: torch.device) -> list[str]:
    """Seconds and peak memory of a sweep over all windows, and of one fit of some windows both ways."""
    sweep, steps = apart(_sweep, device)
    rows, notes = {}, {}
    for name, way in ((_THEIRS, _theirs), ("ours, L-BFGS preconditioned", _ours)):
        rows[name], notes[name] = apart(way, device)
    return [
        f"probe: {_WINDOWS} windows of {_WIDTH} features, {len(PHASES)} phases and {len(TOOLS)} tools, on {device}",
        f"whole sweep, {steps}: {sweep.seconds:.0f} s, {sweep.memory / 1e9:.2f} GB above the features",
        f"one softmax over {len(PHASES)} phases, {_COMPARED} windows, penalty 1:",
        *table(rows, against=_THEIRS, notes=notes),
    ]


def _sweep(device: torch.device) -> tuple[Cost, str]:
    videos = _videos(*_case(_WINDOWS + _WINDOWS // 10, device))
    with tempfile.TemporaryDirectory() as folder:
        fitter = Fitter(ProbeConfig(), _QUERIES, FeatureStore(Path(folder)))
        with measured(device) as cost:
            fitted = fitter.fit(videos[:_VIDEOS], videos[_VIDEOS:], otherwise={})
    rows = [row for kind in fitted.kinds for row in kind["sweep"]]
    return cost, f"{len(rows)} fits, {sum(row['steps'] for row in rows)} evaluations"


def _ours(device: torch.device) -> tuple[Cost, str]:
    features, labels = _case(_COMPARED, device)
    labels = labels[:, : len(PHASES)]
    with measured(device) as cost:
        problem = make_problem(features, labels, torch.ones_like(labels), is_exclusive=True, is_balanced=True)
        linear = fit(problem, 1.0)
    return cost, f"objective {linear.objective:.6f}, {linear.steps} evaluations"


def _theirs(_: torch.device) -> tuple[Cost, str]:
    features, labels = (part.numpy() for part in _case(_COMPARED, torch.device("cpu")))
    classes = labels[:, : len(PHASES)].argmax(1)
    with measured() as cost:
        reference = LogisticRegression(C=1.0, max_iter=1000, tol=1e-6, class_weight="balanced").fit(features, classes)
    weights = (_COMPARED / len(PHASES) / np.bincount(classes))[classes]
    logs = reference.predict_log_proba(features)[np.arange(_COMPARED), classes]
    value = (-(weights * logs).sum() + np.square(reference.coef_).sum() / 2) / _COMPARED
    return cost, f"objective {value:.6f}, {reference.n_iter_[0]} iterations"


def _case(windows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Standardised features [N, D] with a few strong directions, as CLIP's have, and planted labels [N, Q].

    Their variance falls as a power of the direction's number.
    """
    generator = torch.Generator().manual_seed(0)
    spread = torch.arange(1, _WIDTH + 1).float() ** -0.7
    turn = torch.linalg.qr(torch.randn(_WIDTH, _WIDTH, generator=generator)).Q
    hidden = torch.randn(windows, _WIDTH, generator=generator)
    logits = hidden @ torch.randn(_WIDTH, len(_QUERIES), generator=generator) * 0.15
    noise = torch.rand(windows, len(_QUERIES), generator=generator)
    phases = (logits[:, : len(PHASES)] - (-noise[:, : len(PHASES)].log()).log()).argmax(1)
    labels = torch.zeros(windows, len(_QUERIES), dtype=torch.bool)
    labels[torch.arange(windows), phases] = True
    offsets = torch.tensor(_TOOL_SHARES).logit()
    labels[:, len(PHASES) :] = noise[:, len(PHASES) :] < (logits[:, len(PHASES) :] + offsets).sigmoid()
    features = hidden.mul_(spread) @ turn
    features = features.sub_(features.mean(0)).div_(features.std(0))
    return features.to(device), labels.to(device)


def _videos(features: Tensor, labels: Tensor) -> list[Windows]:
    """80 videos of the first windows, 8 of the others."""
    first = np.array_split(np.arange(_WINDOWS), _VIDEOS)
    others = np.array_split(np.arange(_WINDOWS, len(features)), _VAL_VIDEOS)
    return [
        Windows(
            video=f"video{number}",
            split="train" if number < _VIDEOS else "val",
            times=np.arange(len(rows)) + 0.5,
            duration=float(len(rows)),
            features=features[rows[0] : rows[-1] + 1],
            labels=labels[rows[0] : rows[-1] + 1],
            known=torch.ones_like(labels[rows[0] : rows[-1] + 1]),
            digest=str(number),
        )
        for number, rows in enumerate([*first, *others])
    ]
