"""What is searched, for what: the corpus of the configured data, the splits to score, and the head that scores.

Nothing here imports torch, so that what is missing is said at once; only a head that is there needs it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xclip_module.config import DataConfig, EvalConfig, nearest
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.errors import ConfigError
from xclip_module.interface import Corpus, Query, Video
from xclip_module.models.hub import check_head
from xclip_module.moments.tracks import PROCEDURE, QUERY_SET, SIMILARITY, TEMPORAL, TRACKS, has_query_set

if TYPE_CHECKING:
    from xclip_module.models.head import Head


class LocalisationData(NamedTuple):
    """splits: those to score.  head: what scores in place of the sentences, None = they do."""

    corpus: Corpus
    splits: tuple[str, ...]
    head: Head | None = None

    @property
    def videos(self) -> list[Video]:
        """The videos to score, split by split."""
        return [video for split in self.splits for video in self.corpus.of_split(split)]


def load(data: DataConfig, evaluation: EvalConfig, *, head_path: str) -> LocalisationData:
    """The data set with what is to be found in it, and the head that does where one is configured ("" = none).

    Raises ConfigError, DataError or WeightsError for what cannot be asked.
    """
    head = read_head(Path(head_path), evaluation) if head_path else None
    corpus = load_head_queries(data, head) if head else load_corpus(data)
    check_track(evaluation, corpus, has_temporal=head is not None and head.temporal is not None)
    return LocalisationData(corpus, scored_splits(data, corpus), head)


def read_head(path: Path, evaluation: EvalConfig) -> Head:
    """The head in a file. Raises WeightsError, and ConfigError for what goes with sentences only."""
    for key, value in (("prompt_sets", evaluation.prompt_sets), ("background", evaluation.background)):
        if value:
            why = "a head knows classes, not their sentences"
            raise ConfigError(f"eval.{key} with model.head", why=why, attempt=f"leave eval.{key} empty")
    check_head(path)
    from xclip_module.models.head import load_head

    return load_head(path)


def load_head_queries(data: DataConfig, head: Head) -> Corpus:
    """The data set with queries of the head: its own where they are left open, all of them for a recording.

    Raises ConfigError for a query that the head does not know.
    """
    if data.video and not data.queries:
        data = dataclasses.replace(data, queries="; ".join(query.name.replace(";", ",") for query in head.queries))
        corpus = load_corpus(data)
        return corpus._replace(queries=tuple(Query(*query) for query in head.queries))
    corpus = load_corpus(data)
    by_word = {word: query for query in head.queries for word in (query.text, query.name)}
    chosen: dict[str, Query] = {}
    for query in corpus.queries:
        learned = by_word.get(query.name) or by_word.get(query.text)
        if learned is None:
            names = [query.name for query in head.queries]
            why, attempt = nearest(query.name, names), f'--data.queries="{names[0]}"'
            raise ConfigError(f"the head does not know “{query.name}”", why=why, attempt=attempt)
        # Once, though it was named and its sentence too.
        chosen.setdefault(learned.name, Query(learned.name, query.text, learned.kind))
    return corpus._replace(queries=tuple(chosen.values()))


def with_every_split(data: DataConfig) -> DataConfig:
    """So that a missing training video is an error, or named, too."""
    return dataclasses.replace(data, evaluate=("train", "val", "test"))


def load_training(data: DataConfig, evaluation: EvalConfig) -> LocalisationData:
    """The data set with every split, and the splits to score. Raises ConfigError or DataError."""
    if data.video:
        why = "own recordings have no labels to learn from"
        raise ConfigError(f"data.video={data.video}", why=why, attempt="--data.name=cholec80 --data.root=FOLDER")
    corpus = load_corpus(with_every_split(data))
    check_track(evaluation, corpus)
    return LocalisationData(corpus, scored_splits(data, corpus))


def check_track(evaluation: EvalConfig, corpus: Corpus, *, has_temporal: bool = False) -> None:
    """Raises ConfigError for a track that these queries, or the head, have not."""
    tracks = available_tracks(corpus, has_temporal=has_temporal)
    if evaluation.track not in tracks:
        why = f"these queries have {', '.join(tracks)}"
        raise ConfigError(f"eval.track={evaluation.track}", why=why, attempt=f"--eval.track={tracks[-1]}")


def available_tracks(corpus: Corpus, *, has_temporal: bool = False) -> tuple[str, ...]:
    """The tracks that mean something for these queries; `similarity-only` always does."""
    kinds = [query.kind for query in corpus.queries]
    is_present = {SIMILARITY: True, QUERY_SET: has_query_set(kinds), TEMPORAL: has_temporal}
    is_present[PROCEDURE] = bool(corpus.orders) and "phase" in kinds
    return tuple(track for track in TRACKS if is_present[track])


def scored_splits(data: DataConfig, corpus: Corpus) -> tuple[str, ...]:
    """The configured splits that the data set has, each once; the only one of a data set without splits.

    A split whose videos are all missing stays in. One that a data set may lack, such as the val of 40/40, does not.
    """
    present = {video.split for video in corpus.videos} | {missing.split for missing in corpus.missing}
    if present == {"all"}:
        return ("all",)
    for split in data.evaluate:
        if split not in {"train", "val", "test"}:
            why = f"{corpus.name} has splits; {nearest(split, sorted(present))}"
            raise ConfigError(f"data.evaluate={split}", why=why, attempt="--data.evaluate=val,test")
    chosen = tuple(dict.fromkeys(split for split in data.evaluate if split in present))
    if not chosen:
        why = f"found splits {', '.join(sorted(present))}"
        raise ConfigError(f"data.evaluate={','.join(data.evaluate)}", why=why, attempt="--data.evaluate=test")
    return chosen
