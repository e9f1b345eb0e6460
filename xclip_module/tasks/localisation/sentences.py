"""The sentences of a run: queries, further prompt sets and background, as tokens of the weights' own tokenizer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xclip_module.config import EvalConfig, ModelConfig
from xclip_module.datasets.prompts import prompt_sets, read_background, read_prompts
from xclip_module.errors import ConfigError
from xclip_module.interface import Corpus, VideoTextModel
from xclip_module.models.tokenizer import Tokens
from xclip_module.tasks.weights import tokenise

BACKGROUND = "\nbackground"  # no prompt set is called so


class Sentences(NamedTuple):
    """All sentences of a run as tokens.

    rows: which of them are the queries (""), those of each further prompt set, and the background.
    """

    tokens: Tokens
    rows: Mapping[str, slice]


def read_sentences(section: ModelConfig, judging: EvalConfig, *, corpus: Corpus, model: VideoTextModel) -> Sentences:
    """The sentences to score, with further prompt sets and background, for the model's tokenizer."""
    groups = _groups(judging, corpus)
    tokens = tokenise(section, model, [text for group in groups.values() for text in group])
    rows, start = {}, 0
    for name, group in groups.items():
        rows[name] = slice(start, start := start + len(group))
    return Sentences(tokens, rows)


def _groups(judging: EvalConfig, corpus: Corpus) -> dict[str, Sequence[str]]:
    """All sentences to encode: the queries (""), each further prompt set, the background."""
    groups: dict[str, Sequence[str]] = {"": [query.text for query in corpus.queries]}
    if judging.prompt_sets:
        if any(query.kind == "free" for query in corpus.queries):
            why = "prompt sets are sentences for class names, these queries are their own sentences"
            raise ConfigError("eval.prompt_sets", why=why, attempt="leave it empty")
        names = [query.name for query in corpus.queries]
        for name, path in prompt_sets(judging.prompt_sets).items():
            groups[name] = list(read_prompts(path, names).values())
    if judging.background:
        groups[BACKGROUND] = read_background(judging.background)
    return groups
