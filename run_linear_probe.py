"""Train a light head on frozen features, then find when each query happens, with that head."""

import logging

from xclip_module.check import check_probe
from xclip_module.config import Config
from xclip_module.probe import head as probing
from xclip_module.run.launch import Run, launch
from xclip_module.tasks.localisation import judge as outcome
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.localisation import write as outputs

log = logging.getLogger("xclip_module.linear_probe")


def main(config: Config, run: Run) -> dict:
    """Fits the head; then scores, metrics and report as run_zeroshot has them; returns metrics.json."""
    found = probing.probe(config, run)
    environment = run.describe_environment(assemble.settings(found.config, found.setup))
    log.info("%s\n", environment)
    run.status.update(phase="evaluation")
    scored = assemble.score_videos(found.config, found.setup, run)
    concluded = outcome.conclude(found.config, found.setup, scored, probe=found.facts)
    outputs.write(found.config, found.setup, scored, concluded, run=run, environment=environment)
    log.info("%s", outputs.summary_text(found.config, found.setup, concluded))
    log.info("head: %s\nreport: %s", run.folder / probing.HEAD, run.folder / "report.html")
    return concluded.metrics


if __name__ == "__main__":
    launch(main, script=__file__, check=check_probe, goes_on=True)
