"""Find when each sentence happens in each video, or which video a sentence means, with frozen weights."""

from xclip_module.check import check_zeroshot
from xclip_module.config import Config
from xclip_module.run.folder import Run
from xclip_module.run.launch import launch
from xclip_module.tasks import task_of


def main(config: Config, run: Run) -> dict:
    """Scores, moments or ranks, metrics, pictures and report in the run folder; returns what metrics.json holds."""
    task = task_of(config)
    data = task.load()
    scorer = task.scorer(data, run)
    run.describe_environment(task.describe(data, scorer))
    scores = task.score(data, scorer, run)
    results = task.judge(data, scorer, scores)
    task.write(data, scores, results, run)
    return results.metrics


if __name__ == "__main__":
    launch(main, script=__file__, check=check_zeroshot)
