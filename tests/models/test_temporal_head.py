"""The temporal head: what it computes, what it may see, and that numbers alone rebuild it."""

import json

import numpy as np
import pytest
import torch

from xclip_module.models.temporal_head import TemporalHead

pytestmark = pytest.mark.usefixtures("one_thread")
GROUPS = ((0, 2), (4, 3, 5))


def head(*, width=3, queries=6, exclusive=GROUPS, seed=0, **sizes):
    torch.manual_seed(seed)
    return TemporalHead(width, queries, exclusive=exclusive, **{"channels": 4, "layers": 4, **sizes}).double().eval()


def features(windows, width=3, seed=1):
    return torch.randn(windows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_convolution(inputs, module, offsets):
    """[C, M] -> [C', M], one number at a time; outside of the video there is nothing."""
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    outputs = np.zeros((len(weight), inputs.shape[1]))
    for to in range(len(weight)):
        for m in range(inputs.shape[1]):
            outputs[to, m] = bias[to]
            for tap, offset in enumerate(offsets):
                if 0 <= m + offset < inputs.shape[1]:
                    outputs[to, m] += weight[to, :, tap] @ inputs[:, m + offset]
    return outputs


def slow_probabilities(logits):
    probs = 1 / (1 + np.exp(-logits))
    for rows in map(list, GROUPS):
        probs[rows] = np.exp(logits[rows]) / np.exp(logits[rows]).sum(0)
    return probs


def slow_forward(model, video):
    states, outputs = video.numpy().T, []
    for stage in model.stages:
        states = slow_convolution(states, stage[0], [0])
        for number, layer in enumerate(stage[1:-1]):
            step = 2**number
            offsets = [-2 * step, -step, 0] if model.spec.is_causal else [-step, 0, step]
            seen = np.maximum(slow_convolution(states, layer.dilated, offsets), 0)
            states = states + slow_convolution(seen, layer.mix, [0])
        outputs.append(slow_convolution(states, stage[-1], [0]))
        states = slow_probabilities(outputs[-1])
    return np.stack(outputs)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("windows", [1, 3, 20], ids=["one window", "shorter than the dilation", "longer"])
def test_every_stage_equals_the_obvious_loops(is_causal, windows):
    model, video = head(stages=3, is_causal=is_causal), features(windows)
    found = model(video)
    assert found.shape == (3, 6, windows)
    np.testing.assert_allclose(found.detach().numpy(), slow_forward(model, video), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cut", [1, 7, 32, 79])
def test_causal_ignores_the_future_bit_by_bit(dtype, cut):
    model, video = head(is_causal=True, channels=16).to(dtype), features(80).to(dtype)
    changed = video.clone()
    changed[cut:] = torch.nan
    assert torch.equal(model(video)[..., :cut], model(changed)[..., :cut])
    # Nor does it wait for the end of the video.
    torch.testing.assert_close(model(video[:cut]), model(video)[..., :cut], rtol=0, atol=1e-5)


def test_offline_sees_the_future():
    model, video = head(), features(80)
    changed = video.clone()
    changed[40:] += 1
    assert (model(video)[-1, :, 39] != model(changed)[-1, :, 39]).all()


@pytest.mark.parametrize(("is_causal", "layers", "seen"), [(True, 3, 14), (False, 3, 7), (True, 0, 0), (False, 0, 0)])
def test_a_stage_sees_as_far_as_the_docstring_says(is_causal, layers, seen):
    video = features(61).requires_grad_()
    model = head(is_causal=is_causal, layers=layers, stages=1, channels=16)
    (gradient,) = torch.autograd.grad(model(video)[-1, :, 30].square().sum(), video)
    found = gradient.abs().sum(1).nonzero().flatten().tolist()
    assert (found[0], found[-1]) == (30 - seen, 30 if is_causal else 30 + seen)


def test_a_group_shares_one_and_the_other_rows_stand_alone():
    logits = torch.tensor([[0.0], [np.log(3)], [0.0], [0.0], [0.0], [0.0]], dtype=torch.float64)
    expected = torch.tensor([1 / 2, 3 / 4, 1 / 2, 1 / 3, 1 / 3, 1 / 3], dtype=torch.float64)
    torch.testing.assert_close(head().probabilities(logits)[:, 0], expected)


def test_numbers_from_json_rebuild_it():
    model = head(stages=3, is_causal=True, layers=2)
    spec = json.loads(json.dumps(model.spec._asdict()))
    twin = TemporalHead(**spec).double().eval()
    assert twin.spec == model.spec
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(features(9)), model(features(9)))


def test_dropout_is_for_training_only():
    model, video = head(), features(9)
    assert torch.equal(model(video), model(video))
    model.train()
    assert not torch.equal(model(video), model(video))


@pytest.mark.parametrize("groups", [[(0,)], [(0, 6)], [(-1, 0)], [(0, 1), (1, 2)], [(3, 3)], [()]])
def test_groups_that_cannot_be_are_refused(groups):
    with pytest.raises(ValueError, match="exclusive: found .*, expected groups of two or more of the rows 0 to 5"):
        head(exclusive=groups)


@pytest.mark.parametrize("shape", [(9, 4), (0, 3), (1, 9, 3)])
def test_features_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"found \[.*, expected \[M, 3\] with M >= 1"):
        head()(torch.zeros(shape, dtype=torch.float64))
