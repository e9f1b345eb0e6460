"""What a retrieval run's numbers say: its tables, the papers' numbers beside them, and sentences.

result: of one split in metrics.json: texts, videos (scored), of_texts, of_videos (how many there should be), metrics
and chance (t2v/R@1 … v2t/MnR) and two_stage (keep, sampled_texts, recall@1, recall@10, or None).
"""

from collections.abc import Mapping
from typing import Any

from xclip_module.reporting import tables, training_facts
from xclip_module.reporting.retrieval.published import MARK, published, tested_on
from xclip_module.reporting.tables import Row, Table

_COLUMNS = tuple(column._replace(note="", key=column.key[4:]) for column in training_facts.RETRIEVAL[:5])
_DIRECTIONS = {"t2v": "text → video", "v2t": "video → text"}
_SIDES = "t2v: text → video; v2t: video → text"
_CAPTION = (
    "R@K: share of queries whose own item is among the first K. MdR, MnR: median and mean rank, first = 1, lower is "
    "better"
)


def headline(result: Mapping[str, Any], v2t: str) -> Table:
    """Both directions with chance below each; v2t: what a video is compared with."""
    texts, videos = (_share(result, name) for name in ("texts", "videos"))
    notes = {
        "t2v": f"over {texts}, each among {result['videos']} videos",
        "v2t": f"over {videos}" + f"; {v2t}" * bool(v2t),
    }
    rows = []
    for key, name in _DIRECTIONS.items():
        reached, expected = (_of(result[kind], key) for kind in ("metrics", "chance"))
        rows.append(Row(name, notes[key], tables.cells(reached, _COLUMNS), "track"))
        rows.append(Row(f"chance, {name}", "random scores", tables.cells(expected, _COLUMNS), "control"))
    return Table(_CAPTION, "direction", _COLUMNS, rows)


def size(result: Mapping[str, Any]) -> str:
    """How many texts and videos were scored, and of how many."""
    return f"{_share(result, 'texts')}, {_share(result, 'videos')}"


def is_partial(result: Mapping[str, Any]) -> bool:
    """Whether texts or videos of the split were left out."""
    return result["texts"] < result["of_texts"] or result["videos"] < result["of_videos"]


def partial_words(result: Mapping[str, Any]) -> str:
    """Says what was left out of a split, and what that means; "" where nothing was."""
    if not is_partial(result):
        return ""
    return (
        f"Only {size(result)} were scored. Fewer videos to choose from make every number better: these cannot "
        "be compared with numbers of the whole split."
    )


def of_100_texts(result: Mapping[str, Any]) -> str:
    """How often the own video comes first, for people who know no metric."""
    shares = [_of_100(result["metrics"].get(key)) for key in ("t2v/R@1", "t2v/R@10")]
    by_chance = [_of_100(result["chance"].get(key)) for key in ("t2v/R@1", "t2v/R@10")]
    return (
        f"Of 100 texts, {shares[0]} find their own video first and {shares[1]} among the first ten "
        f"({by_chance[0]} and {by_chance[1]} by chance)."
    )


def two_stage_words(result: Mapping[str, Any]) -> str:
    """What a cheap first search loses; "" where it was not measured."""
    facts = result.get("two_stage")
    if not facts:
        return ""
    first, ten, v2t = (tables.number(facts.get(key)) for key in ("recall@1", "recall@10", "v2t recall@1"))
    return (
        f"Search in two stages: a cheap score keeps {facts['keep']} candidates, the exact one orders these. On "
        f"{facts['sampled_texts']} texts they held {first} % of the first answers of the exact search and {ten} % of "
        f"its first ten; from video to text {v2t} % of the first answers. A rank can come out better than in the exact "
        "search, too, where what would come before was left out."
    )


def published_table(metrics: Mapping[str, Any]) -> Table | None:
    """The papers' numbers below this run's on the split that they report; None where there are none."""
    rows, split = published(metrics["benchmark"]), tested_on(metrics["benchmark"])
    if not rows or split not in metrics["splits"]:
        return None
    ours = metrics["splits"][split]
    columns = [column for column in training_facts.RETRIEVAL if any(column.key in row.values for row in rows)]
    note = metrics["protocol"].get("weights", "")
    if is_partial(ours):
        note += f"; over {size(ours)}"
    body = [Row(f"this run, {split}", str(note), tables.cells(ours["metrics"], columns), "track")]
    body += [
        Row(f"{row.method}, {row.backbone}", MARK + f"; {row.note}" * bool(row.note), tables.cells(row.values, columns))
        for row in rows
    ]
    caption = f"The papers' own numbers ({rows[0].split}): other training and hardware, one run each, {MARK}. {_SIDES}"
    return Table(caption, "who", columns, body)


def sources(metrics: Mapping[str, Any]) -> list[str]:
    """Where the published numbers were read, a line per source."""
    methods: dict[str, list[str]] = {}
    for row in published(metrics["benchmark"]):
        methods.setdefault(row.source, []).append(row.method)
    return [f"{', '.join(dict.fromkeys(names))}: {source}" for source, names in methods.items()]


def last_and_best(training: Mapping[str, Any]) -> Table | None:
    """The validations of the last and of the best step, whichever of them was kept; None without any.

    training: as in metrics.json.
    """
    rows, kept, monitor = training["validations"], training_facts.kept_step(training), training["monitor"]
    if not rows:
        return None
    split = training_facts.validated_on(training)
    measured = [row for row in rows if row.get(monitor) is not None]
    # Where a validation chose, the best step is the one that it chose.
    best = max(
        measured, key=lambda row: (row["step"] == kept and training_facts.is_best(training), row[monitor]), default=None
    )
    named = [("last", rows[-1]), *([("best", best)] if best else [])]
    if best is rows[-1]:
        named = [("last and best", best)]
    columns, body = training_facts.columns(training), []
    for name, row in named:
        picked = f"by {split} {monitor}" if "best" in name else ""
        notes = [picked, training_facts.note_of(row["step"], kept)]
        label = f"{name}, step {row['step']}"
        cells = tables.cells(row, columns)
        body.append(Row(label, ", ".join(filter(None, notes)), cells, "track" * (row["step"] == kept)))
    caption = f"Last and best step, validated on {training.get('validated_on', 'val')}. {_SIDES}"
    return Table(caption, "step", columns, body)


def choice_words(metrics: Mapping[str, Any]) -> tuple[str, bool]:
    """What the numbers are worth after the choice of the weights, and whether that is a warning."""
    training = metrics["training"]
    split, reported = training_facts.validated_on(training), list(metrics["splits"])
    others = [name for name in reported if name != split]
    picked = f"The best step was picked on {split}, the very split that is reported here"
    if not training_facts.is_best(training):
        words = "No split chose the weights: those of the last step are reported."
        beside = f" The best step beside it was picked on {split}, the very split that is reported: it is optimistic."
        return words + beside * (split in reported and bool(training["validations"])), False
    if others:
        optimistic = ", so that its numbers are optimistic" * (split in reported)
        words = f"{split} chose the step{optimistic}; {', '.join(others)} was looked at once, with the chosen weights."
        return words, False
    if training_facts.kept_step(training) == training["steps"]:
        return f"{picked}, but it is the last one.", False
    return f"{picked}: its numbers are optimistic. Those of the last step are not, and stand beside them.", True


def _of(values: Mapping[str, Any], direction: str) -> dict[str, Any]:
    """The numbers of one direction without its name."""
    start = f"{direction}/"
    return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}


def _share(result: Mapping[str, Any], name: str) -> str:
    """ "1000 texts", or "998 of 1000 texts" where some are missing."""
    count, whole = result[name], result[f"of_{name}"]
    return f"{count} {name}" if count == whole else f"{count} of {whole} {name}"


def _of_100(share: float | None) -> str:
    return tables.UNDEFINED if share is None else f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.1g}"
