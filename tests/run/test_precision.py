"""What "auto" means on a CPU."""

import numpy as np
import pytest
import torch
from support.cholec80_tree import write_copy

import run_zeroshot
from xclip_module.config import Config
from xclip_module.errors import ConfigError
from xclip_module.run import precision

CPU = torch.device("cpu")
# Taken before --bf16-units replaces it.
LOOK = precision._has_bf16_units


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "fp32"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_tile": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "amx_tile": True}, "bf16"),
    ],
)
def test_auto_on_a_cpu_is_bf16_where_it_has_the_units(unpinned, monkeypatch, capabilities, expected):
    monkeypatch.setattr(precision, "_has_bf16_units", LOOK)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision.choose("auto", CPU) == expected
    assert [precision.choose(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


@pytest.mark.parametrize("has_units", [True, False])
@pytest.mark.parametrize("pinned", ["fp32", "bf16"])
def test_the_variable_says_what_auto_is_on_a_cpu_and_nothing_else(monkeypatch, has_units, pinned):
    monkeypatch.setattr(precision, "_has_bf16_units", lambda: has_units)
    monkeypatch.setenv("XCLIP_CPU_PRECISION", pinned)
    assert precision.choose("auto", CPU) == pinned
    assert [precision.choose(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert precision.choose("auto", torch.device("cuda")) == "fp16"


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setattr(precision, "_has_bf16_units", lambda: True)
    monkeypatch.setenv("XCLIP_CPU_PRECISION", "")
    assert precision.choose("auto", CPU) == "bf16"


def test_another_value_of_the_variable_is_one_line(monkeypatch):
    monkeypatch.setenv("XCLIP_CPU_PRECISION", "fp16")
    with pytest.raises(ConfigError) as ended:
        precision.choose("auto", CPU)
    assert str(ended.value) == "XCLIP_CPU_PRECISION=fp16: expected fp32 or bf16; try: unset XCLIP_CPU_PRECISION"
    assert precision.choose("fp32", CPU) == "fp32"


def test_every_test_begins_with_fp32():
    assert precision.choose(Config().run.precision, CPU) == "fp32"


def test_zero_shot_scores_in_bf16_are_those_of_fp32_up_to_rounding(start, one_thread, tmp_path):
    words = ["--data.name=cholec80", f"--data.root={write_copy(tmp_path / 'copy', [1, 41], seconds=20)}"]
    words += ["--data.skip_unreadable=true", "--model.weights=untrained:data/demo/model", "--eval.bootstrap=0"]
    words += ["--data.clip_seconds=4", "--data.stride_seconds=2"]
    scores = {}
    for chosen in ("auto", "fp32", "bf16"):
        code, text = start(run_zeroshot.main, *words, f"--run.precision={chosen}", name=chosen)
        assert code == 0, text
        scores[chosen] = np.load(tmp_path / "runs" / chosen / "scores.npz")["video41/scores"]
        shown = "fp32" if chosen == "auto" else chosen
        assert f"precision: {shown}" in (tmp_path / "runs" / chosen / "report.md").read_text()
    np.testing.assert_array_equal(scores["auto"], scores["fp32"])
    # bf16 has 8 bits, so that each of a tower's operations rounds by up to 2**-9. Scores are cosines by
    # exp(logit_scale), of untrained weights 1 / 0.07; a cosine may be two such roundings off.
    np.testing.assert_allclose(scores["bf16"], scores["fp32"], rtol=0, atol=2 * 2**-9 / 0.07)
    assert not np.array_equal(scores["bf16"], scores["fp32"])


def test_half_precision_on_a_cpu_is_refused(start):
    code, text = start(
        lambda config, run: precision.choose(config.run.precision, run.world.device), "--run.precision=fp16"
    )
    assert code == 2
    assert "needs a GPU" in text
