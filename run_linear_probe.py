"""Train a light head on frozen features, then find when each query happens, with that head."""

from xclip_module.check import check_probe
from xclip_module.config import Config
from xclip_module.probe.run import fit
from xclip_module.run.folder import Run
from xclip_module.run.launch import launch


def main(config: Config, run: Run) -> dict:
    """Fits the head; then scores, metrics and report as run_zeroshot has them; returns metrics.json."""
    task, data, scorer = fit(config, run)
    run.status.update(phase="evaluation")
    run.describe_environment(task.describe(data, scorer))
    scores = task.score(data, scorer, run)
    results = task.judge(data, scorer, scores)
    task.write(data, scores, results, run)
    return results.metrics


if __name__ == "__main__":
    launch(main, script=__file__, check=check_probe, resumes=True)
