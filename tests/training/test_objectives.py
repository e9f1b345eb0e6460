import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from xclip_module.training.objectives import LOSSES, accuracy, floor


def relation(classes, sentences):
    """Sentences [B] and, for each distinct one, in which clips it holds: those of its owner's class."""
    classes, sentences = torch.tensor(classes), torch.tensor(sentences)
    owner = torch.stack([classes[sentences == row][0] for row in range(int(sentences.max()) + 1)])
    positives = owner[:, None] == classes[None]
    return sentences, positives, torch.zeros_like(positives)


def random_logits(sentences, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 5 * torch.randn(int(sentences.max()) + 1, len(sentences), generator=generator, dtype=torch.float64)


def value_and_gradient(name, logits, *pairs):
    logits = logits.clone().requires_grad_()
    loss = LOSSES[name](logits, *pairs)
    return loss.item(), torch.autograd.grad(loss, logits)[0]


UNIQUE = relation([0, 1, 2, 3], [0, 1, 2, 3])
# Clips 0, 2 and 3 own the same string.
STRINGS = relation([0, 1, 0, 0, 2], [0, 1, 0, 0, 2])
# Classes 0 and 1 with two wordings each.
PARAPHRASES = relation([0, 0, 1, 1, 0], [0, 1, 2, 3, 0])


@pytest.mark.parametrize("name", ["multi_positive", "infonce", "masked"])
def test_without_shared_sentences_it_is_clips_symmetric_cross_entropy(name):
    logits, rows = random_logits(UNIQUE[0]), torch.arange(4)
    expected = (cross_entropy(logits, rows) + cross_entropy(logits.T, rows)) / 2
    assert LOSSES[name](logits, *UNIQUE).item() == pytest.approx(expected.item(), abs=1e-12)


def test_equal_strings_give_one_hot_infonce_its_value_and_gradient():
    logits, rows = random_logits(STRINGS[0]).requires_grad_(), torch.arange(5)
    samples = logits[STRINGS[0]]
    one_hot = (cross_entropy(samples, rows) + cross_entropy(samples.T, rows)) / 2
    expected = torch.autograd.grad(one_hot, logits)[0]
    for name in ("multi_positive", "infonce"):
        value, gradient = value_and_gradient(name, logits.detach(), *STRINGS)
        assert value == pytest.approx(one_hot.item(), abs=1e-12)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_paraphrases_repel_each_other_in_infonce_and_attract_in_multi_positive():
    logits = torch.zeros(4, 5, dtype=torch.float64)
    wording = (1, 4)  # the second wording of class 0, with a clip of class 0 that owns the first
    assert value_and_gradient("infonce", logits, *PARAPHRASES)[1][wording] > 0
    assert value_and_gradient("multi_positive", logits, *PARAPHRASES)[1][wording] < 0


def test_multi_positive_by_hand():
    """Two clips of one class, worded differently, and a third: targets (1/2, 1/2, 0), (1/2, 1/2, 0), (0, 0, 1)."""
    pairs = relation([0, 0, 1], [0, 1, 2])
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 5.0, 6.0]])
    by_row = [math.log(sum(map(math.exp, row))) for row in logits.tolist()]
    by_column = [math.log(sum(map(math.exp, column))) for column in logits.T.tolist()]
    rows = (by_row[0] - 1.5) + (by_row[1] - 0) + (by_row[2] - 6)
    columns = (by_column[0] - 0.5) + (by_column[1] - 1) + (by_column[2] - 6)
    assert LOSSES["multi_positive"](logits, *pairs).item() == pytest.approx((rows + columns) / 6, abs=1e-6)


def test_masked_leaves_other_pairs_that_hold_out_of_the_denominators():
    sentences, positives, unknown = PARAPHRASES
    logits = random_logits(sentences)
    value, gradient = value_and_gradient("masked", logits, *PARAPHRASES)
    changed = torch.where(positives & (torch.arange(4)[:, None] != sentences), 1e3, logits)
    assert LOSSES["masked"](changed, sentences, positives, unknown).item() == value
    samples = logits[sentences]
    rows = [samples[i, [j for j in range(5) if j == i or not positives[sentences[i], j]]] for i in range(5)]
    columns = [samples[[i for i in range(5) if i == j or not positives[sentences[i], j]], j] for j in range(5)]
    own = samples.diagonal()
    expected = sum(torch.logsumexp(part, 0) for part in (*rows, *columns)) / 10 - own.mean()
    assert value == pytest.approx(expected.item(), abs=1e-12)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_pair_that_nobody_knows_takes_no_part(name):
    sentences, positives, unknown = PARAPHRASES
    unknown = unknown.clone()
    unknown[0, 2] = unknown[1, 3] = unknown[3, 0] = True
    logits = random_logits(sentences)
    value, gradient = value_and_gradient(name, logits, sentences, positives, unknown)
    assert LOSSES[name](torch.where(unknown, 1e3, logits), sentences, positives, unknown).item() == value
    assert value < LOSSES[name](logits, sentences, positives, torch.zeros_like(unknown)).item()
    assert (gradient[unknown] == 0).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_clips_own_sentence_holds_whatever_the_annotation_says(name):
    sentences, positives, unknown = PARAPHRASES
    own = torch.zeros_like(positives)
    own[sentences, torch.arange(5)] = True
    logits = random_logits(sentences)
    expected = LOSSES[name](logits, sentences, positives, unknown)
    assert LOSSES[name](logits, sentences, positives & ~own, unknown) == expected
    assert LOSSES[name](logits, sentences, positives, own) == expected


def test_classification_is_cross_entropy_over_all_sentences_with_a_uniform_target():
    """Three sentences, of which the last belongs to no clip; both of the others hold in the second clip."""
    sentences = torch.tensor([0, 1])
    positives = torch.tensor([[True, True], [False, True], [False, False]])
    logits = random_logits(torch.tensor([0, 2]))
    target = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    expected = cross_entropy(logits.T, target).item()
    found = LOSSES["classification"](logits, sentences, positives, torch.zeros_like(positives)).item()
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("pairs", [UNIQUE, STRINGS, PARAPHRASES], ids=["unique", "strings", "paraphrases"])
def test_no_logits_go_below_the_floor(name, pairs):
    least = min(LOSSES[name](random_logits(pairs[0], seed), *pairs).item() for seed in range(50))
    assert least >= floor(name, *pairs) - 1e-12


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("multi_positive", STRINGS),
        ("multi_positive", PARAPHRASES),
        ("classification", STRINGS),
        ("classification", PARAPHRASES),
        ("infonce", STRINGS),
        ("masked", PARAPHRASES),
    ],
)
def test_perfect_logits_reach_the_floor(name, pairs):
    logits = 60.0 * pairs[1].double()
    assert LOSSES[name](logits, *pairs).item() == pytest.approx(floor(name, *pairs), abs=1e-9)


@pytest.mark.parametrize(("batch", "expected"), [(8, 0.60), (16, 1.03), (32, 1.62), (64, 2.26), (128, 2.93)])
def test_floor_of_seven_uniform_phases_with_one_sentence_each(batch, expected):
    """An independent simulation gave these; `floor` is what a run logs beside its loss."""
    generator = torch.Generator().manual_seed(batch)
    floors = []
    for _ in range(400):
        phases = torch.randint(7, (batch,), generator=generator)
        positives = torch.arange(7)[:, None] == phases
        floors.append([floor(name, phases, positives, positives & False) for name in ("infonce", "multi_positive")])
    means = torch.tensor(floors).mean(0)
    assert means[0] == means[1]
    assert means[0] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_one_clip_is_learned_already(name):
    value, gradient = value_and_gradient(name, torch.tensor([[3.0]]), *relation([0], [0]))
    assert (value, gradient.item()) == (0, 0)


def test_accuracy_counts_clips_whose_closest_known_sentence_holds():
    sentences, positives, unknown = relation([0, 1, 1, 0], [0, 1, 2, 0])
    #                         right, the other wording of its class, wrong, wrong but for the unknown
    logits = torch.tensor([[9.0, 0.0, 9.0, 1.0], [0.0, 0.0, 0.0, 9.0], [0.0, 9.0, 0.0, 0.0]])
    assert accuracy(logits, sentences, positives, unknown) == 0.5
    unknown = unknown.clone()
    unknown[1, 3] = True
    assert accuracy(logits, sentences, positives, unknown) == 0.75
