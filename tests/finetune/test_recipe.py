"""Open keys take the values of their kind of data; what does not apply to it is refused in one line."""

import dataclasses

import pytest

from xclip_module.config import Config, DataConfig, FinetuneConfig
from xclip_module.errors import ConfigError
from xclip_module.finetune.recipe import with_recipe
from xclip_module.tasks.localisation.recipe import recipe as of_operations
from xclip_module.tasks.retrieval.recipe import recipe as of_pairs

OPERATIONS = of_operations(DataConfig(name="cholec80"))
DEMO = of_operations(DataConfig(name="demo"))
PAIRS = of_pairs(DataConfig(name="msrvtt-9k"))
ALL = pytest.mark.parametrize("recipe", [OPERATIONS, DEMO, PAIRS], ids=["operations", "demo", "pairs"])


@ALL
def test_open_keys_are_filled_and_set_ones_stay(recipe):
    filled = with_recipe(FinetuneConfig(), recipe, data_name="x")
    assert {name: getattr(filled, name) for name in recipe.values} == dict(recipe.values)
    mine = FinetuneConfig(epochs=3, lr=0.5, weight_decay=0.7)
    assert with_recipe(mine, recipe, data_name="x") == dataclasses.replace(filled, epochs=3, lr=0.5, weight_decay=0.7)


@ALL
def test_a_filled_section_stays_as_it_is(recipe):
    filled = with_recipe(FinetuneConfig(), recipe, data_name="x")
    assert with_recipe(filled, recipe, data_name="x") == filled


@ALL
def test_a_recipe_fills_every_key_whose_default_is_no_value(recipe):
    """A learning rate of 0, a jitter of -1 or a monitor "auto" would reach the training otherwise."""
    filled, defaults = with_recipe(FinetuneConfig(), recipe, data_name="x"), FinetuneConfig()
    assert all(getattr(filled, name) != getattr(defaults, name) for name in recipe.values)
    assert filled.monitor in recipe.monitors


def test_the_help_names_the_values_of_the_recipes():
    keys = {key.name: key.metadata["reason"] for key in dataclasses.fields(FinetuneConfig)}
    for name in ("batch_size", "epochs", "pretrained_lr_scale"):
        operations, demo, pairs = (recipe.values[name] for recipe in (OPERATIONS, DEMO, PAIRS))
        assert f"0 = {operations:g} (demo: {demo:g}, retrieval: {pairs:g})" in keys[name]
    assert f"0 = {OPERATIONS.values['lr']:g}".replace("0.0001", "1e-4") in keys["lr"]
    assert f"auto = {OPERATIONS.values['monitor']} (retrieval: {PAIRS.values['monitor']})" in keys["monitor"]


@pytest.mark.parametrize(
    ("recipe", "change", "line"),
    [
        (PAIRS, {"jitter_seconds": 1.0}, "finetune.jitter_seconds: x has sentences of whole videos; try: leave it out"),
        (PAIRS, {"prompt_sets": ("a",)}, "finetune.prompt_sets: x has sentences of whole videos; try: leave it out"),
        (OPERATIONS, {"one_sentence": True}, "finetune.one_sentence: x has moments of long videos; try: leave it out"),
        (
            PAIRS,
            {"loss": "classification"},
            "finetune.loss=classification: a softmax over the sentences of all videos is no classification; "
            "try: --finetune.loss=multi_positive",
        ),
        (
            PAIRS,
            {"monitor": "AUROC"},
            "finetune.monitor=AUROC: x is judged by other numbers; try: --finetune.monitor=t2v/R@1",
        ),
        (
            DEMO,
            {"monitor": "t2v/R@1"},
            "finetune.monitor=t2v/R@1: x is judged by other numbers; try: --finetune.monitor=mAP@0.5",
        ),
    ],
)
def test_what_does_not_apply_is_refused(recipe, change, line):
    with pytest.raises(ConfigError) as error:
        with_recipe(FinetuneConfig(**change), recipe, data_name="x")
    assert str(error.value) == line


def test_what_says_no_is_not_refused():
    section = FinetuneConfig(jitter_seconds=0.0, hard_negatives=0.0, balance_phases=False)
    assert with_recipe(section, PAIRS, data_name="x").jitter_seconds == 0


def test_every_number_that_can_be_monitored_belongs_to_one_kind_of_data():
    choices = next(key for key in dataclasses.fields(Config().finetune) if key.name == "monitor").metadata["choices"]
    assert sorted(choices) == sorted(("auto", *OPERATIONS.monitors, *PAIRS.monitors))
