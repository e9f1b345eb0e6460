"""Values of the next run. Every key, with its unit and reason: python run_zeroshot.py --help."""

from xclip_module.config import Config, DataConfig, EvalConfig, FinetuneConfig, ModelConfig, ProbeConfig, RunConfig

CONFIG = Config(
    run=RunConfig(
        root="runs",  # all results, one folder a run
        name="",  # empty = script, data set and UTC time (run_finetune.py: and configuration, so that it goes on)
        precision="auto",  # fp16 on CUDA
    ),
    data=DataConfig(
        name="demo",  # demo | cholec80 | moments | msrvtt-9k | msvd | lsmdc | didemo | activitynet | … (--help)
        root="",  # empty = data/<name>; for Cholec80 the folder that holds videos/ and phase_annotations/
        clip_seconds=0,  # 0 = the data set's own
        frames_per_clip=0,  # 0 = what the checkpoint takes
        stride_seconds=0,  # 0 = the data set's own
    ),
    model=ModelConfig(
        weights="data/demo/model",  # e.g. openai/clip-vit-base-patch32, microsoft/xclip-base-patch32, a .pt
    ),
    eval=EvalConfig(
        moments_per_query=20,  # ranked moments kept per video and query
    ),
    finetune=FinetuneConfig(
        epochs=0,  # 0 = the data set's own
        batch_size=0,  # over all processes; 0 = the data set's own
        micro_batch_size=0,  # in one forward; 0 = the whole share, -1 = found by trying
        lr=0,  # of new modules; 0 = the data set's own
        pretrained_lr_scale=0,  # of the towers, times lr; 0 = the data set's own
        monitor="auto",  # val number that chooses the best step; auto = mAP@0.5, for retrieval t2v/R@1
    ),
    probe=ProbeConfig(
        features="auto",  # frame | window | temporal | video
        penalty=0,  # of the squared weights; 0 = swept on val
        shots=(),  # few-shot: numbers of training videos, e.g. (1, 2, 4)
        temporal="none",  # tcn | causal-tcn: a small network over the whole video as track +temporal
    ),
)
