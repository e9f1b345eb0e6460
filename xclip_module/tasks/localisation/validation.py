"""Val numbers while the weights change: frames are decoded once, encoded and scored anew each time."""

from collections.abc import Sequence

import torch

from xclip_module.config import Config
from xclip_module.evaluation.summary import summarise
from xclip_module.features.validation_frames import batches_of
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import Corpus, Curve, Question, Video, VideoTextModel
from xclip_module.moments.answers import answer
from xclip_module.run import distributed
from xclip_module.run.launch import Run
from xclip_module.tasks import sentences
from xclip_module.tasks.localisation import score as assemble

# What is kept of each validation.
NUMBERS = ("AUROC", "AUPRC", "mAP@0.5", "R1@0.5", "mIoU")


def validate(
    config: Config,
    corpus: Corpus,
    model: VideoTextModel,
    queries: sentences.Queries,
    frames: Sequence[tuple[Video, Arrays]],
    run: Run,
) -> dict[str, float | None]:
    """The macro numbers of the run's track over all processes' videos, the same on every process.

    frames: this process's val videos with their pictures [N, 3, H, H] uint8 on the frame grid, exactly those that
    `assemble.score_videos` would decode, so that the numbers are those of run_zeroshot with these weights.
    """
    setup = assemble.encode_queries(config, corpus, model, queries, run.world)
    own = [_curve(config, setup, video, arrays, run.world.device) for video, arrays in frames]
    curves = [curve for share in distributed.gather(own, run.world) for curve in share]
    questions = [Question(query.name, query.kind) for query in corpus.queries]
    answers = [
        answer(
            curve,
            questions,
            track=config.eval.track,
            stride=setup.sampling.stride_seconds,
            section=config.eval,
            orders=corpus.orders,
        )
        for curve in sorted(curves, key=lambda curve: curve.video)
    ]
    macro = summarise(answers, corpus.moments, [question.name for question in questions]).macro
    return {name: macro.get(name) for name in NUMBERS}


def _curve(config: Config, setup: assemble.Setup, video: Video, arrays: Arrays, device: torch.device) -> Curve:
    pictures, duration = arrays["pictures"], float(arrays["duration"])
    batches = batches_of(pictures, config.model.frames_per_forward)
    encoded = assemble.encoder(config, setup, device)(batches, len(pictures), duration, video.id)
    stored = {**encoded, "duration": arrays["duration"], "frames": arrays["frames"]}
    return assemble.curve_of(video.id, stored, setup, device)
