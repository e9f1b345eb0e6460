"""The files of a training: which checkpoint is resumed, which best weights stay, and what is refused."""

import copy

import pytest
import torch
from support.models_factory import TINY
from torch import nn

from xclip_module.errors import DataError, WeightsError
from xclip_module.finetune import files
from xclip_module.models.demo_model import write_demo_model
from xclip_module.models.tokenizer import load_tokenizer
from xclip_module.models.two_tower import TwoTower
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.training.engine import Trainer, TrainingProgress

FACTS = {"seconds": 1.5, "found": 0, "data": "of these clips"}


def trainer(width=3):
    torch.manual_seed(width)
    model = nn.Linear(width, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    return Trainer(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), factor=lambda step: 1.0)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, World(0, 1, torch.device("cpu")), is_terminal=False)


@pytest.fixture
def export(run, tmp_path_factory):
    """Exports a tiny model as the best of a step."""
    place = tmp_path_factory.mktemp("tokenizer")
    vocabulary = write_demo_model(place, ["a clip"]).vocabulary
    model, tokenizer = TwoTower(TINY._replace(vocabulary=vocabulary)), load_tokenizer(place)

    def write(step):
        return files.export(model, tokenizer, run, files.best_folder(step), is_half=False)

    return write


def stored(run, *, step, **progress):
    """A checkpoint of a trainer after some steps."""
    state = trainer()
    state.progress = TrainingProgress(step=step, **progress)
    files.save_state({**state.state(), "facts": FACTS}, step, run)
    return state


def test_the_newest_state_puts_another_trainer_where_it_was(run):
    assert files.newest_state(run) is None
    stored(run, step=4)
    former = stored(run, step=7)
    fresh = trainer()
    nn.init.zeros_(fresh.model.weight)
    assert files.resume(fresh, files.newest_state(run), "of these clips", run) == FACTS
    assert fresh.progress == former.progress
    assert torch.equal(fresh.model.weight, former.model.weight)


def test_what_would_not_be_one_training_is_refused(run):
    stored(run, step=7)
    state = files.newest_state(run)
    with pytest.raises(DataError, match="training data has changed"):
        files.resume(trainer(), state, "of others", run)
    with pytest.raises(WeightsError, match="checkpoint of other weights.*size mismatch"):
        files.resume(trainer(width=5), state, "of these clips", run)
    files.save_state({"format": 2, "progress": {"best_step": -1}}, 9, run)
    with pytest.raises(WeightsError, match="checkpoint of another version.*format 2, this version reads 1"):
        files.newest_state(run)


@pytest.mark.parametrize(("damage", "line"), [("gone", "best weights are gone"), ("flipped", "damaged best weights")])
def test_best_weights_that_are_not_the_noted_ones_are_refused(run, export, damage, line):
    stored(run, step=7, best_step=5, best_sum=export(5))
    state = files.newest_state(run)
    files.resume(trainer(), copy.deepcopy(state), "of these clips", run)
    path = run.folder / files.best_folder(5) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink() if damage == "gone" else path.write_bytes(content)
    with pytest.raises(WeightsError, match=line):
        files.resume(trainer(), state, "of these clips", run)


def test_former_best_weights_go_only_when_a_checkpoint_knows_the_new_ones(run, export):
    def left():
        return sorted(path.name for path in (run.folder / "checkpoints").glob("best-*"))

    stored(run, step=5, best_step=5, best_sum=export(5))
    digest = export(6)
    assert left() == ["best-00000005", "best-00000006"]
    stored(run, step=6, best_step=6, best_sum=digest)
    assert left() == ["best-00000006"]


def test_the_best_weights_are_published_whole_or_not_at_all(run, export):
    progress = TrainingProgress(step=7, best_step=5, best_sum=export(5))
    files.publish_best(run, progress)
    folder = run.folder / files.best_folder(5)
    published = {path.name: path.read_bytes() for path in (run.folder / files.BEST).iterdir()}
    assert published == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "model.safetensors" in published
    progress.best_sum = "another"
    with pytest.raises(WeightsError, match="damaged best weights"):
        files.publish_best(run, progress)
