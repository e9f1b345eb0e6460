"""Section finetune as it is trained: a kind of data's own values where the user leaves a key open."""

import dataclasses

from xclip_module.config import FinetuneConfig
from xclip_module.errors import ConfigError
from xclip_module.tasks.recipe import Recipe


def with_recipe(section: FinetuneConfig, recipe: Recipe, *, data_name: str) -> FinetuneConfig:
    """The section with the recipe's values in its open keys; of one that has none left, the same.

    data_name: for the messages. Raises ConfigError for what is set and does not apply to this kind of data.
    """
    defaults = FinetuneConfig()
    # A value that equals the default counts as open, as everywhere in the configuration.
    is_open = {name: getattr(section, name) == getattr(defaults, name) for name in recipe.values}
    for name in recipe.unused:
        value = getattr(section, name)
        # An explicit 0 or "false" says that the thing is not wanted, which it is not.
        if value and value != getattr(defaults, name):
            raise ConfigError(f"finetune.{name}", why=f"{data_name} has {recipe.contents}", attempt="leave it out")
    if section.loss in recipe.refused_losses:
        why = recipe.refused_losses[section.loss]
        raise ConfigError(f"finetune.loss={section.loss}", why=why, attempt=f"--finetune.loss={defaults.loss}")
    if not is_open["monitor"] and section.monitor not in recipe.monitors:
        why = f"{data_name} is judged by other numbers"
        attempt = f"--finetune.monitor={recipe.values['monitor']}"
        raise ConfigError(f"finetune.monitor={section.monitor}", why=why, attempt=attempt)
    return dataclasses.replace(section, **{name: recipe.values[name] for name, left in is_open.items() if left})
