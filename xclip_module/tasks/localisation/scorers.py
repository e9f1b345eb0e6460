"""What scores a window: the model with the run's sentences, or the model with a head.

Q queries, M windows, F frames of a window, R rows of scores: queries first, then what else is scored with them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from xclip_module.config import DataConfig, EvalConfig, ModelConfig
from xclip_module.datasets.prompts import prompt_sets, read_background, read_prompts
from xclip_module.errors import ConfigError, WeightsError
from xclip_module.features.scoring import HEADER, known_features, score_stored, window_features
from xclip_module.interface import Corpus, Embeddings, Sampling, VideoTextModel
from xclip_module.models.head import Head
from xclip_module.models.tokenizer import Tokens
from xclip_module.moments.tracks import TEMPORAL
from xclip_module.tasks.encode import in_precision
from xclip_module.tasks.localisation.windows import WindowEncoder
from xclip_module.tasks.weights import Origin, tokenise

BACKGROUND = "\nbackground"  # no prompt set is called so
Stored = Mapping[str, np.ndarray]
# What of `Head.source` must be the same here.
_COMPARED = ("features", "weights", "picture", "crop", "clip_seconds", "frames_per_clip")


class Sentences(NamedTuple):
    """All sentences of a run as tokens of the weights' own tokenizer.

    rows: which of them are the queries (""), those of each further prompt set, and the background.
    """

    tokens: Tokens
    rows: Mapping[str, slice]


def read_sentences(section: ModelConfig, evaluation: EvalConfig, *, corpus: Corpus, model: VideoTextModel) -> Sentences:
    """The sentences to score, with further prompt sets and background, for the model's tokenizer."""
    groups: dict[str, Sequence[str]] = {"": [query.text for query in corpus.queries]}
    for name, texts in read_prompt_sets("eval.prompt_sets", evaluation.prompt_sets, corpus).items():
        groups[name] = list(texts.values())
    if evaluation.background:
        groups[BACKGROUND] = read_background(evaluation.background)
    tokens = tokenise(section, model, [text for group in groups.values() for text in group])
    rows, start = {}, 0
    for name, group in groups.items():
        rows[name] = slice(start, start := start + len(group))
    return Sentences(tokens, rows)


def read_prompt_sets(key: str, names: Sequence[str], corpus: Corpus) -> dict[str, dict[str, str]]:
    """Prompt set -> query -> its sentence there. Raises ConfigError about the key for queries without classes."""
    if names and any(query.kind == "free" for query in corpus.queries):
        why = "prompt sets are sentences for class names, these queries are their own sentences"
        raise ConfigError(key, why=why, attempt="leave it empty")
    queries = [query.name for query in corpus.queries]
    return {name: read_prompts(path, queries) for name, path in prompt_sets(names).items()}


@dataclasses.dataclass(frozen=True)
class SentenceScorer:
    """text: of all sentences.  rows: which of them are the queries (""), each further prompt set, the background."""

    encoder: WindowEncoder
    text: Embeddings
    rows: Mapping[str, slice]
    is_untrained: bool
    origin: Origin
    head_protocol = ""

    @property
    def title(self) -> str:
        """Of the report."""
        return "Zero-shot localisation" if self.origin.training is None else "Fine-tuned"

    @property
    def word_slots(self) -> int:
        """Token slots of a sentence."""
        return self.text.tokens.shape[1]

    def scores(self, stored: Stored, *, rows: np.ndarray, device: torch.device, video: str) -> np.ndarray:
        """Scores [R, M] of one video; rows: grid rows [M, F] of its windows."""
        return score_stored(stored, self.text, self.encoder.model, rows=rows, device=device)


@dataclasses.dataclass(frozen=True)
class HeadScorer:
    """query_rows: which of the head's queries are the run's.  features: what of the model's features the head sees."""

    encoder: WindowEncoder
    head: Head
    query_rows: tuple[int, ...]
    features: str
    origin: Origin
    title = "Linear probe"
    # It reads no words, and was trained whatever the weights below it are.
    word_slots, is_untrained = 0, False

    @property
    def head_protocol(self) -> str:
        """One line for the results."""
        return str(self.head.made["protocol"])

    @property
    def rows(self) -> Mapping[str, slice]:
        """Which scores are the linear head's, and which its temporal network's."""
        size = len(self.query_rows)
        temporal = {TEMPORAL: slice(size, 2 * size)} if self.head.temporal is not None else {}
        return {"": slice(0, size), **temporal}

    def scores(self, stored: Stored, *, rows: np.ndarray, device: torch.device, video: str) -> np.ndarray:
        """Scores [R, M] of one video; rows: grid rows [M, F] of its windows."""
        seen = window_features(stored, self.encoder.model, rows=rows, kind=self.features, device=device, video=video)
        further = [row + len(self.head.queries) for row in self.query_rows] if self.head.temporal is not None else []
        return self.head.scores(seen)[[*self.query_rows, *further]].cpu().numpy()


Scorer = SentenceScorer | HeadScorer


def with_sentences(
    encoder: WindowEncoder, sentences: Sentences, *, device: torch.device, is_untrained: bool, origin: Origin
) -> SentenceScorer:
    """The sentences encoded by the model's present weights."""
    encode = in_precision(encoder.model.encode_text, encoder.precision, device)
    text = encode(sentences.tokens.input_ids.to(device), sentences.tokens.mask.to(device))
    return SentenceScorer(encoder, text, sentences.rows, is_untrained, origin)


def with_sampling(data: DataConfig, head: Head) -> DataConfig:
    """The section with the head's own windows where it leaves them open."""
    made = {name: head.made[name] for name in ("clip_seconds", "frames_per_clip", "stride_seconds")}
    return dataclasses.replace(data, **{name: value for name, value in made.items() if not getattr(data, name)})


def source_of(model: VideoTextModel, sampling: Sampling, *, features: str, crop: str) -> dict[str, Any]:
    """All that a head's features depend on, but the video and the rounding of the precision."""
    # Only the temporal header's output depends on weights beyond those that stored features depend on.
    is_whole = features == HEADER
    return {
        "features": features,
        "weights": model.digest() if is_whole else model.stored_digest(),
        "picture": [model.picture.size, list(model.picture.mean), list(model.picture.std)],
        "crop": crop,
        "clip_seconds": sampling.clip_seconds,
        "frames_per_clip": sampling.frames_per_clip,
    }


def check_fit(head: Head, model: VideoTextModel, sampling: Sampling, *, crop: str, path: str) -> None:
    """Raises WeightsError where the features that the head in `path` was made for are others than this run's."""
    features = head.source["features"]
    made = {name: head.source.get(name) for name in (*_COMPARED, "stride_seconds")}
    here: dict[str, Any] = dict.fromkeys(_COMPARED)
    if features in known_features(model):
        here = source_of(model, sampling, features=features, crop=crop)
    # Only a head with a temporal network is bound to a stride: it has learned how far apart windows are.
    here["stride_seconds"] = sampling.stride_seconds if made["stride_seconds"] else None
    differing = [name for name in made if made[name] != here[name]]
    if differing:
        why = "; ".join(f"{name} {_short(made[name])}, here {_short(here[name])}" for name in differing)
        raise WeightsError("this head is for other features", path, why, str(head.made["flags"]))


def query_rows(head: Head, corpus: Corpus) -> tuple[int, ...]:
    """Which of the head's queries are the corpus's."""
    names = [query.name for query in head.queries]
    return tuple(names.index(query.name) for query in corpus.queries)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else "none" if value is None else str(value)
