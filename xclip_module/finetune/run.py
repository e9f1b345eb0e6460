"""Fine-tuning from config to trained weights: what it can be refused for at once, then everything else."""

from xclip_module.config import Config
from xclip_module.finetune.loading import Trained, load
from xclip_module.run.folder import Run


def finetune(config: Config, run: Run) -> Trained:
    """Trains to the end and stores the best and the last weights as folders; resumes what a former start began.

    Raises ConfigError, DataError or WeightsError before any work for what cannot be; NonFiniteError when training
    diverges; see `engine.fit` for what is saved when it ends early.
    """
    loaded = load(config, processes=run.world.size)
    # After the cheap mistakes: importing torch takes seconds.
    from xclip_module.finetune.training_run import train

    return train(loaded, run)
