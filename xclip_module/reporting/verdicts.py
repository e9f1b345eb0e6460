"""What the numbers say in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from xclip_module.reporting.differences import Difference
from xclip_module.reporting.tables import interval, number

PRIOR = "time prior"
UNTRAINED = "The weights are untrained (random): expect chance."
_BLIND = "The model does not beat the time prior, which knows only when things usually happen and sees no picture."
_NAMES = {"AUROC": "AUROC", "AUPRC": "AP", "mAP@0.5": "det_mAP@0.5"}


def against_time_prior(result: Mapping[str, Any]) -> list[str]:
    """The run's track against the time prior, a sentence per metric; the first one is the verdict on AUROC.

    "below", "above" or "not distinguishable" by the paired 95 % interval; without one by the values alone, and said.
    """
    prior = result["controls"].get(PRIOR)
    if not prior:
        return ["No training videos, so no time prior: what the usual order of events alone would reach is not known."]
    words = []
    for key, name in _NAMES.items():
        ours, theirs = result["macro"][key], prior[key]
        if ours is None or theirs is None:
            continue
        bounds = result["minus_time_prior"].get(key)
        paired = f", difference {interval(bounds)}" if bounds else ""
        values = f"{number(ours)} % against {number(theirs)} %{paired}"
        side = _side(ours, theirs, bounds)
        if key == "AUROC" and not side.endswith("above"):
            words.append(_BLIND)
        words.append(f"{name}: {side} the time prior ({values})")
    return words


def beaten_controls(result: Mapping[str, Any]) -> str:
    """Which controls the run's track beats by its mean AUROC, and which not.

    >>> beaten_controls({"macro": {"AUROC": 0.7}, "controls": {"random": {"AUROC": 0.5}, "oracle": {"AUROC": 1.0}}})
    'AUROC beats random; not oracle'
    """
    ours, others = result["macro"]["AUROC"], {name: row["AUROC"] for name, row in result["controls"].items()}
    if ours is None:
        return "AUROC is undefined"
    beaten = [name for name, value in others.items() if value is not None and value < ours]
    rest = [name for name in others if name not in beaten]
    return f"AUROC beats {', '.join(beaten) or 'no control'}" + f"; not {', '.join(rest)}" * bool(rest)


def of_100_searches(result: Mapping[str, Any]) -> str:
    """How often the first answer is good, for people who know no metric."""
    share = result["macro"]["R1@0.5"]
    if share is None:
        return "No search had a true moment to be found."
    line = (
        "Of 100 searches for something that happens, the first answer overlaps the true moment by half or more in "
        f"{100 * share:.0f}"
    )
    rows = {name: result["controls"][name]["R1@0.5"] for name in (PRIOR, "oracle") if name in result["controls"]}
    beside = [f"{100 * value:.0f} for the {name}" for name, value in rows.items() if value is not None]
    return line + (f" ({', '.join(beside)})." if beside else ".")


def of_gap(name: str, first: tuple[str, float | None], second: tuple[str, float | None], gap: Difference) -> str:
    """One sentence on the fall or rise from a split to another; first, second: split and its value."""
    if gap.value is None:
        return f"{name}: undefined in {first[0]} or {second[0]}."
    side = "falls" if gap.value < 0 else "rises" if gap.value > 0 else "stays"
    sure = "more than the choice of videos explains" if gap.excludes_zero else "not distinguishable from no gap"
    if gap.bounds is None:
        sure = "without an interval"
    return (
        f"{name} {side} from {number(first[1])} % ({first[0]}) to {number(second[1])} % ({second[0]}), "
        f"gap {signed(gap)}: {sure}."
    )


def signed(difference: Difference) -> str:
    """A difference in percent points with its interval.

    >>> signed(Difference(-0.021, (-0.05, 0.01)))
    '−2.1 [−5.0, +1.0]'
    """
    if difference.value is None:
        return "–"
    parts = [_plus(difference.value)]
    if difference.bounds is not None:
        parts.append(f"[{_plus(difference.bounds[0])}, {_plus(difference.bounds[1])}]")
    return " ".join(parts)


def _plus(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _side(ours: float, theirs: float, bounds: Sequence[float] | None) -> str:
    if not bounds:
        return "by its value (no interval) " + ("above" if ours > theirs else "below" if ours < theirs else "equal to")
    return "above" if bounds[0] > 0 else "below" if bounds[1] < 0 else "not distinguishable from"
