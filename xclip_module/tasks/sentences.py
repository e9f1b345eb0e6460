"""The sentences of a run: queries, further prompt sets and background, as tokens of the weights' own tokenizer."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from xclip_module.config import Config, ModelConfig
from xclip_module.datasets.prompts import prompt_sets, read_background, read_prompts
from xclip_module.errors import ConfigError, WeightsError
from xclip_module.interface import Corpus, VideoTextModel
from xclip_module.models import load_tokenizer
from xclip_module.models.hub import locate
from xclip_module.models.tokenizer import Tokens

UNTRAINED = "untrained:"
BACKGROUND = "\nbackground"  # no prompt set is called so
# So many sentences that were cut are named, of more the number.
_MOST_CUT = 5
SHIPPED = str(Path(__file__).parents[2] / "data" / "demo" / "model")

log = logging.getLogger(__name__)


class Queries(NamedTuple):
    """All sentences of a run as tokens, and which of them are what; see `Setup`."""

    tokens: Tokens
    rows: Mapping[str, slice]


def read_queries(config: Config, corpus: Corpus, model: VideoTextModel) -> Queries:
    """The sentences to score, with further prompt sets and background, for the model's tokenizer."""
    sentences = _sentences(config, corpus)
    tokens = tokenise(config, model, [text for group in sentences.values() for text in group])
    rows, start = {}, 0
    for name, group in sentences.items():
        rows[name] = slice(start, start := start + len(group))
    return Queries(tokens, rows)


def tokenise(config: Config, model: VideoTextModel, texts: Sequence[str]) -> Tokens:
    """Token ids for the model's word slots; what does not fit is named in the log.

    Raises WeightsError when the tokenizer knows more than the weights.
    """
    place = tokenizer_place(config)
    tokens = load_tokenizer(place)(list(texts), model.text_slots)
    if int(tokens.input_ids.max()) >= model.vocabulary:
        found = f"ids up to {int(tokens.input_ids.max())}, the weights know {model.vocabulary}"
        raise WeightsError(
            "tokenizer and weights do not fit", place, found, "--model.tokenizer=FOLDER of these weights"
        )
    for text, rest in list(tokens.cut.items())[:_MOST_CUT]:
        log.warning("query too long for %d tokens, left out at its end: “%s” (of “%s”)", model.text_slots, rest, text)
    if len(tokens.cut) > _MOST_CUT:
        log.warning("%d of %d sentences are too long for %d tokens", len(tokens.cut), len(set(texts)), model.text_slots)
    return tokens


def tokenizer_place(config: Config) -> Path:
    """The tokenizer's folder or file: the configured one, or the one beside the weights."""
    path = locate(config.model.tokenizer or place_of(config.model.weights))
    return path.parent if path.is_file() and path.suffix not in {".gz", ".txt"} else path


def place_of(weights: str) -> str:
    """File, folder or hub name without the prefix for random weights; the demo's are found from anywhere."""
    name = weights.removeprefix(UNTRAINED)
    return SHIPPED if name == ModelConfig().weights and not Path(name).exists() else name


def _sentences(config: Config, corpus: Corpus) -> dict[str, Sequence[str]]:
    """All sentences to encode: the queries (""), each further prompt set, the background."""
    groups: dict[str, Sequence[str]] = {"": [query.text for query in corpus.queries]}
    if config.eval.prompt_sets:
        if any(query.kind == "free" for query in corpus.queries):
            why = "prompt sets are sentences for class names, these queries are their own sentences"
            raise ConfigError("eval.prompt_sets", why=why, attempt="leave it empty")
        names = [query.name for query in corpus.queries]
        for name, path in prompt_sets(config.eval.prompt_sets).items():
            groups[name] = list(read_prompts(path, names).values())
    if config.eval.background:
        groups[BACKGROUND] = read_background(config.eval.background)
    return groups
