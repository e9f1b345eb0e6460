"""What scores a window: the model with the run's sentences, or the model with a head.

Q queries, M windows, F frames of a window, R rows of scores: queries first, then what else is scored with them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from xclip_module.features.scoring import score_stored, window_features
from xclip_module.interface import Embeddings
from xclip_module.models.head import Head
from xclip_module.moments.tracks import TEMPORAL
from xclip_module.tasks.encode import in_precision
from xclip_module.tasks.localisation.sentences import Sentences
from xclip_module.tasks.localisation.windows import WindowEncoder
from xclip_module.tasks.weights import Origin

Stored = Mapping[str, np.ndarray]


class SentenceScorer(NamedTuple):
    """text: of all sentences.  rows: which of them are the queries (""), each further prompt set, the background."""

    encoder: WindowEncoder
    text: Embeddings
    rows: Mapping[str, slice]
    is_untrained: bool
    origin: Origin

    @property
    def title(self) -> str:
        """Of the report."""
        return "Zero-shot localisation" if self.origin.training is None else "Fine-tuned"

    @property
    def in_words(self) -> str:
        """One line on the weights."""
        return f"{self.encoder.model.protocol}, {self.encoder.precision}"

    @property
    def word_slots(self) -> int:
        """Token slots of a sentence."""
        return self.text.tokens.shape[1]

    @property
    def head_protocol(self) -> str:
        """No head."""
        return ""

    def scores(self, stored: Stored, *, rows: np.ndarray, device: torch.device, video: str) -> np.ndarray:
        """Scores [R, M] of one video; rows: grid rows [M, F] of its windows."""
        return score_stored(stored, self.text, self.encoder.model, rows=rows, device=device)


class HeadScorer(NamedTuple):
    """query_rows: which of the head's queries are the run's.  features: what of the model's features the head sees."""

    encoder: WindowEncoder
    head: Head
    query_rows: tuple[int, ...]
    features: str
    origin: Origin

    @property
    def title(self) -> str:
        """Of the report."""
        return "Linear probe"

    @property
    def in_words(self) -> str:
        """One line on the weights."""
        return f"{self.encoder.model.protocol}, {self.encoder.precision}"

    @property
    def word_slots(self) -> int:
        """A head reads no words."""
        return 0

    @property
    def head_protocol(self) -> str:
        """One line for the results."""
        return str(self.head.made["protocol"])

    @property
    def is_untrained(self) -> bool:
        """A head was trained, whatever the weights below it are."""
        return False

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
