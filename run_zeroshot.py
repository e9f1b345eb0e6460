"""Find when each sentence happens in each video, with frozen weights."""

import logging

from xclip_module import assemble, outcome
from xclip_module.config import Config
from xclip_module.run import Run, launch

log = logging.getLogger("xclip_module.zeroshot")


def main(config: Config, run: Run) -> dict:
    """Scores, moments, metrics, pictures and report in the run folder; returns what metrics.json holds."""
    setup = assemble.set_up(config, run)
    environment = run.describe_environment(assemble.settings(config, setup))
    log.info("%s\n", environment)
    scored = assemble.score_videos(config, setup, run)
    found = outcome.localise(scored.curves, setup.corpus, setup.sampling.stride_seconds, config.eval)
    metrics = outcome.evaluate(config, setup, scored, found)
    outcome.write(config, setup, scored, found, metrics, run=run, environment=environment)
    log.info("%s\nreport: %s", outcome.summary_text(config, setup, found, metrics), run.folder / "report.md")
    return metrics


if __name__ == "__main__":
    launch(main, script=__file__)
