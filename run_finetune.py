"""Train the weights on the training videos, then find when each sentence happens, or in which video, with the best."""

import logging

from xclip_module.check import check_finetune
from xclip_module.config import Config
from xclip_module.finetune import run as finetuning
from xclip_module.run.launch import Run, launch
from xclip_module.tasks.localisation import judge as outcome
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.localisation import write as outputs
from xclip_module.tasks.retrieval import score as retrieving
from xclip_module.tasks.retrieval import write as searching

log = logging.getLogger("xclip_module.finetune")


def main(config: Config, run: Run) -> dict:
    """Trains, or goes on with it; then scores, metrics and report as run_zeroshot has them; returns metrics.json."""
    trained = finetuning.finetune(config, run)
    if retrieving.is_retrieval(config.data):
        return searching.search(trained.config, run, training=trained.facts, settings=trained.settings)
    setup = assemble.set_up(trained.config, run)
    environment = run.describe_environment({**assemble.settings(trained.config, setup), **trained.settings})
    log.info("%s\n", environment)
    run.status.update(phase="evaluation")
    scored = assemble.score_videos(trained.config, setup, run)
    found = outcome.conclude(trained.config, setup, scored, title="Fine-tuned", training=trained.facts)
    outputs.write(trained.config, setup, scored, found, run=run, environment=environment)
    log.info("%s\nreport: %s", outputs.summary_text(trained.config, setup, found), run.folder / "report.html")
    return found.metrics


if __name__ == "__main__":
    launch(main, script=__file__, check=check_finetune, goes_on=True)
