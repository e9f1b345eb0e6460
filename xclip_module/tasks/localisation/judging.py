"""The rules by which curves become answers, and answers numbers; the same for a run, a validation and a draw."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from xclip_module.config import EvalConfig
from xclip_module.evaluation.summary import Summary, summarise
from xclip_module.interface import Answer, Corpus, Curve, Question
from xclip_module.moments.answers import answer


class Judge(NamedTuple):
    """Curves to answers, and answers to a summary, by the rules of one run.

    stride: seconds between two samples of a curve.  weights: [B, V] draws of a bootstrap over the videos.
    """

    corpus: Corpus
    section: EvalConfig
    stride: float
    weights: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """Of the queries, in their order."""
        return [query.name for query in self.corpus.queries]

    def answers(self, curves: Iterable[Curve], track: str) -> list[Answer]:
        """The answers of each video under a track."""
        questions = [Question(query.name, query.kind) for query in self.corpus.queries]
        orders = self.corpus.orders
        return [
            answer(curve, questions, track=track, stride=self.stride, section=self.section, orders=orders)
            for curve in curves
        ]

    def summary(self, answers: Sequence[Answer], *, has_draws: bool = True) -> Summary:
        """The numbers of some videos' answers."""
        return summarise(answers, self.corpus.moments, self.names, self.weights if has_draws else None)
