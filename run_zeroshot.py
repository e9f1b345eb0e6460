"""Find when each sentence happens in each video, or which video a sentence means, with frozen weights."""

import logging

from xclip_module.check import check_zeroshot
from xclip_module.config import Config
from xclip_module.run.launch import Run, launch
from xclip_module.tasks.localisation import judge as outcome
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.localisation import write as outputs
from xclip_module.tasks.retrieval import score as retrieving
from xclip_module.tasks.retrieval import write as searching

log = logging.getLogger("xclip_module.zeroshot")


def main(config: Config, run: Run) -> dict:
    """Scores, moments, metrics, pictures and report in the run folder; returns what metrics.json holds."""
    if retrieving.is_retrieval(config.data):
        return searching.search(config, run)
    setup = assemble.set_up(config, run)
    environment = run.describe_environment(assemble.settings(config, setup))
    log.info("%s\n", environment)
    scored = assemble.score_videos(config, setup, run)
    found = outcome.conclude(config, setup, scored)
    outputs.write(config, setup, scored, found, run=run, environment=environment)
    log.info("%s\nreport: %s", outputs.summary_text(config, setup, found), run.folder / "report.html")
    return found.metrics


if __name__ == "__main__":
    launch(main, script=__file__, check=check_zeroshot)
