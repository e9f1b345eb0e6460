"""Train the weights on the training videos, then find when each sentence happens, or in which video, with the best."""

from xclip_module.check import check_finetune
from xclip_module.config import Config
from xclip_module.finetune.run import finetune
from xclip_module.run.folder import Run
from xclip_module.run.launch import launch
from xclip_module.tasks import task_of


def main(config: Config, run: Run) -> dict:
    """Trains, or resumes; then scores, metrics and report as run_zeroshot has them; returns metrics.json."""
    trained = finetune(config, run)
    task = task_of(trained.config)
    data = task.load()
    scorer = task.scorer(data, run, trained.origin)
    run.status.update(phase="evaluation")
    run.describe_environment(task.describe(data, scorer))
    scores = task.score(data, scorer, run)
    results = task.judge(data, scorer, scores)
    task.write(data, scores, results, run)
    return results.metrics


if __name__ == "__main__":
    launch(main, script=__file__, check=check_finetune, resumes=True)
