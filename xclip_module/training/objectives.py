"""What a batch of clips and sentences is trained for: losses by name, and how low each can fall.

U distinct sentences, B clips. All take the same four tensors: logits [U, B], rows are texts; sentences [B], the row of
each clip's own sentence; positives [U, B] bool, True where a sentence holds in a clip; unknown [U, B] bool, True where
nobody has said: such a pair takes no part, its logit is left out of every softmax. A clip's own sentence always holds.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def multi_positive(logits: Tensor, sentences: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
    """Symmetric cross-entropy over samples; the target is uniform over all clips in which a sentence holds.

    The batch is B samples (a clip with its own sentence), so a sentence that several clips own stands in as many rows
    and weighs as much. Without shared sentences this is CLIP's loss; where clips share a sentence as a string and
    nothing else holds, value and gradient are those of `infonce`; they differ for paraphrases.
    Source: CLIP (Radford et al. 2021) figure 3, with the multi-label target of SupCon (Khosla et al. 2020) eq. 2 (the
    sum over positives outside the logarithm), in both directions. Differs: X-CLIP and CLIP4Clip are one-hot.
    """
    logits, _, holds, unsaid = _pairs(logits, sentences, positives, unknown)
    return _symmetric(logits, holds, unsaid)


def infonce(logits: Tensor, sentences: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy over samples: only the own pair is a positive, whatever else holds.

    Source: CLIP (Radford et al. 2021) figure 3; X-CLIP (Ma et al. 2022) eq. 17-19 and modules/until_module.py.
    """
    logits, own, _, unsaid = _pairs(logits, sentences, positives, unknown)
    return _symmetric(logits, own, unsaid)


def masked(logits: Tensor, sentences: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
    """`infonce` without false negatives: other pairs that hold are left out of the denominators.

    Rare classes then meet as many negatives as frequent ones, which favours the frequent ones.
    """
    logits, own, holds, unsaid = _pairs(logits, sentences, positives, unknown)
    return _symmetric(logits, own, unsaid | (holds & ~own))


def classification(logits: Tensor, sentences: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
    """Cross-entropy of every clip's softmax over the U sentences; the target is uniform over those that hold.

    Needs the rows to be all sentences of the data set: the softmax is over the classes, not over the batch.
    """
    holds, unsaid = _relation(sentences, positives, unknown)
    return _cross_entropy(logits.T, holds.T, unsaid.T)


LOSSES: dict[str, Loss] = {
    "multi_positive": multi_positive,
    "infonce": infonce,
    "masked": masked,
    "classification": classification,
}


def floor(name: str, sentences: Tensor, positives: Tensor, unknown: Tensor) -> float:
    """The value in nats under which the loss cannot fall on this batch: the mean entropy of its targets.

    A bound, reached where the logits are free; for `infonce` it counts the samples with the same sentence, which no
    model can tell apart. Log it beside the loss, so that nobody waits for zero.

    >>> nobody = torch.zeros(2, 3, dtype=torch.bool)
    >>> round(floor("infonce", torch.tensor([0, 1, 1]), nobody, nobody), 4)  # (0 + 2 ln 2) / 3
    0.4621
    """
    holds, _ = _relation(sentences, positives, unknown)
    if name == "masked":
        return 0.0
    if name == "classification":
        return float(_mean_entropy(holds.T))
    if name == "infonce":
        return float(_mean_entropy(sentences[:, None] == sentences[None]))
    samples = holds[sentences]
    return float(_mean_entropy(samples) + _mean_entropy(samples.T)) / 2


def accuracy(logits: Tensor, sentences: Tensor, positives: Tensor, unknown: Tensor) -> float:
    """Share of the clips whose closest sentence of the U (pairs that nobody knows aside) holds.

    Over distinct sentences, not over samples: among equal rows an argmax would be a draw.

    >>> relation = torch.tensor([0, 1]), torch.eye(2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)
    >>> accuracy(torch.tensor([[0.9, 0.8], [0.1, 0.2]]), *relation)
    0.5
    """
    holds, unsaid = _relation(sentences, positives, unknown)
    closest = logits.masked_fill(unsaid, -torch.inf).argmax(dim=0, keepdim=True)
    return float(holds.gather(0, closest).float().mean())


def _pairs(logits: Tensor, sentences: Tensor, positives: Tensor, unknown: Tensor) -> tuple[Tensor, ...]:
    """Logits, own, holds and unsaid of all pairs of samples [B, B]: row = whose text, column = whose clip."""
    holds, unsaid = _relation(sentences, positives, unknown)
    own = torch.eye(len(sentences), dtype=torch.bool, device=logits.device)
    return logits[sentences], own, holds[sentences], unsaid[sentences]


def _relation(sentences: Tensor, positives: Tensor, unknown: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs [U, B] hold and which nobody knows; the own sentence holds whatever the annotation says."""
    holds = positives & ~unknown
    holds[sentences, torch.arange(len(sentences), device=sentences.device)] = True
    return holds, unknown & ~holds


def _symmetric(logits: Tensor, target: Tensor, left_out: Tensor) -> Tensor:
    return (_cross_entropy(logits, target, left_out) + _cross_entropy(logits.T, target.T, left_out.T)) / 2


def _cross_entropy(logits: Tensor, target: Tensor, left_out: Tensor) -> Tensor:
    """Mean over rows of the mean over a row's targets of -log softmax along the row, `left_out` not in its sum."""
    logs = torch.log_softmax(logits.masked_fill(left_out, -torch.inf), dim=1)
    # `where` before the sum: 0 times the -inf of a left-out pair would be NaN.
    return -(torch.where(target, logs, 0.0).sum(1) / target.sum(1)).mean()


def _mean_entropy(target: Tensor) -> Tensor:
    """Of distributions that are uniform over the True of a row."""
    return target.sum(1).double().log().mean()
