"""The head's file and scores."""

import contextlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.heads_factory import KNOWN, QUERIES, make_head

from xclip_module.errors import WeightsError
from xclip_module.models import head as head_file
from xclip_module.models.head import load_head, log_odds, save_head

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = [query.kind for query in QUERIES]


@pytest.mark.parametrize("is_temporal", [False, True], ids=["linear", "with a network"])
def test_a_head_comes_back_from_its_file_bit_for_bit(tmp_path, is_temporal):
    head = make_head(is_temporal=is_temporal, known=torch.tensor([True, False, True, True, True]))
    save_head(head, tmp_path / "head.safetensors")
    found = load_head(tmp_path / "head.safetensors")
    for name in ("mean", "inverse", "weight", "bias", "known"):
        assert torch.equal(getattr(found, name), getattr(head, name)), name
        assert getattr(found, name).dtype == getattr(head, name).dtype
    assert (found.queries, found.source, found.made) == (head.queries, head.source, head.made)
    assert (found.temporal is not None) == is_temporal
    save_head(found, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "head.safetensors").read_bytes()
    features = torch.randn(9, 6)
    scores = head.scores(features)
    assert scores.shape == (10 if is_temporal else 5, 9)
    assert torch.equal(found.scores(features), scores)


def test_scores_are_the_standardised_features_through_weight_and_bias():
    head = make_head(is_temporal=True)
    features = torch.randn(7, 6)
    inputs = (features.numpy() - head.mean.numpy()) * head.inverse.numpy()
    linear = inputs @ head.weight.numpy().T + head.bias.numpy()
    with torch.no_grad():
        network = head.temporal(torch.tensor(inputs))[-1].numpy().T
    expected = np.concatenate([slow_log_odds(linear), slow_log_odds(network)], axis=1)
    np.testing.assert_allclose(head.scores(features).numpy(), expected.T, atol=1e-5)


def slow_log_odds(logits):
    """Of a phase: p / (1 - p) of a softmax over the phases."""
    found = logits.copy()
    phases = [row for row, kind in enumerate(KINDS) if kind == "phase"]
    probs = np.exp(logits[:, phases]) / np.exp(logits[:, phases]).sum(1, keepdims=True)
    found[:, phases] = np.log(probs / (1 - probs))
    return found


def test_odds_of_a_phase_are_against_all_known_phases_and_those_of_a_tool_are_its_logit():
    """By hand: the logits log 6, log 2, log 1 are shares 6/9, 2/9, 1/9; without the last 6/8 and 2/8."""
    logits = torch.tensor([6.0, 0.5, 2.0, 1.0, 3.0]).log()[:, None]
    expected = torch.tensor([6 / 3, 0.5, 2 / 7, 1 / 8, 3.0]).log()[:, None]
    torch.testing.assert_close(log_odds(logits, KINDS, KNOWN), expected)
    unknown = log_odds(logits, KINDS, torch.tensor([True, True, True, False, False]))
    torch.testing.assert_close(unknown[:3], torch.tensor([[6 / 2], [0.5], [2 / 6]]).log())
    assert unknown[3:].tolist() == [[-100.0], [-100.0]]
    assert logits[3] == 0


@pytest.mark.parametrize("is_temporal", [False, True], ids=["linear", "with a network"])
def test_a_query_that_training_did_not_know_scores_the_same_everywhere(is_temporal):
    head = make_head(is_temporal=is_temporal, known=torch.tensor([True, True, True, True, False]))
    scores = head.scores(torch.randn(50, 6)).unflatten(0, (-1, 5))
    assert (scores[:, 4] == -100).all()
    assert (scores[:, :4].std(dim=2) > 0).all()
    assert torch.isfinite(scores).all()


def saved(folder, **options):
    path = folder / "head.safetensors"
    save_head(make_head(is_temporal=True, **options), path)
    return path


def test_a_bit_that_flips_is_refused_or_harmless(tmp_path):
    path = saved(tmp_path)
    content, expected = path.read_bytes(), load_head(path).scores(torch.ones(4, 6))
    places = {*range(0, 24), *np.random.default_rng(0).integers(len(content), size=120).tolist()}
    harmless = []
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with contextlib.suppress(WeightsError):
            harmless.append(load_head(path))
    assert len(harmless) < 0.05 * len(places)
    assert all(one.queries == QUERIES and torch.equal(one.scores(torch.ones(4, 6)), expected) for one in harmless)


def test_a_file_that_was_cut_is_refused(tmp_path):
    path = saved(tmp_path)
    content = path.read_bytes()
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"head.safetensors"):
            load_head(path)


def test_what_is_no_head_says_so(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match=r"no such head: .*x.safetensors; try: --model.head="):
        load_head(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="not a head: .*its format is None, expected 'xclip_module.head'"):
        load_head(path)
    save_file({"weight": torch.ones(2)}, path, metadata={"head": json.dumps({"format": "other"})})
    with pytest.raises(WeightsError, match="not a head: .*its format is 'other'"):
        load_head(path)
    for content in (b"", b"\n", b"PK\x03\x04" * 99, json.dumps({"format": "xclip_module.head"}).encode()):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="unreadable head"):
            load_head(path)


def test_a_head_of_another_version_or_without_a_tensor_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(head_file, "_VERSION", 2)
    path = saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="head of another version: .*version 2, this program reads 1"):
        load_head(path)
    monkeypatch.setattr(head_file, "_TENSORS", ("mean", "inverse", "weight", "bias"))
    path = saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="unreadable head: .*'known'"):
        load_head(path)
