"""A copy of Cholec80 with four short videos and a tiny model, for runs of run_finetune.py that take seconds."""

import json

from support.cholec80_tree import write_copy
from support.models_factory import TINY
from xclip_module.models.demo_model import write_demo_model
from xclip_module.models.saving import spec_to_json


def write_project(root, *, seconds=20):
    """Folders copy/ (train 1 and 2, val 7, test 10) and model/ (shape and tokenizer); the arguments that use them."""
    write_copy(root / "copy", [1, 2, 7, 10], seconds=seconds)
    vocabulary = write_demo_model(root / "model", ["a clip closes the duct"]).vocabulary
    # Wide enough that no prompt of the demo is cut.
    spec = TINY._replace(vocabulary=vocabulary, frames=4, words=77, context=77)
    config = {"format": "xclip_module.two_tower", "spec": spec_to_json(spec)}
    (root / "model" / "config.json").write_text(json.dumps(config))
    return [
        *("--data.name=demo", f"--data.root={root / 'copy'}", "--data.skip_unreadable=true"),
        *(f"--model.weights=untrained:{root / 'model'}", "--eval.bootstrap=0", "--finetune.pretrained_lr_scale=1"),
        *("--finetune.batch_size=8", "--finetune.epochs=2", "--finetune.lr=1e-3", "--finetune.log_every_steps=2"),
    ]
