"""The sections of the configuration: every key, its type, default, unit and reason."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

AUTO = "auto"
# finetune.micro_batch_size=auto.
FIND = -1
RETRIEVAL_NAMES = (
    "msrvtt-9k",
    "msrvtt-7k",
    "msvd",
    "lsmdc",
    "didemo",
    "activitynet",
    "msrvtt-9k-mmaction2",
    "msrvtt-7k-mmaction2",
    "msvd-mmaction2",
)
DATA_NAMES = ("demo", "cholec80", "moments", *RETRIEVAL_NAMES)


def key(
    default: Any,
    reason: str,
    *,
    choices: Sequence[str] = (),
    least: float = 0,
    most: float = math.inf,
    words: Mapping[str, Any] | None = None,
    is_free: bool = False,
) -> Any:
    """A key of the schema; its default is allowed whatever the limits say, for a 0 that means "the data set's own".

    words: what a word on the command line stands for.  is_free: a run may resume with another value, because its
    results are the same up to rounding.
    """
    rules = {"choices": tuple(choices), "least": least, "most": most, "words": words or {}, "is_free": is_free}
    return field(default=default, metadata={"reason": reason, **rules})


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes and on what it computes."""

    root: str = key("runs", "folder that holds all runs and the feature store", is_free=True)
    name: str = key(
        "",
        "run folder under root; empty = script, data set and UTC time (run_finetune: and configuration)",
        is_free=True,
    )
    seed: int = key(42, "seed of everything that is drawn", most=2**63 - 1)
    device: str = key(AUTO, "auto = CUDA where there is one", choices=(AUTO, "cpu", "cuda"), is_free=True)
    deterministic: bool = key(False, "ask torch for algorithms that give the same bits every time, at some speed")
    precision: str = key(
        AUTO,
        "of the towers; auto = fp16 on CUDA, bf16 on a CPU with bf16 units, else fp32",
        choices=(AUTO, "fp32", "fp16", "bf16"),
    )


@dataclass(frozen=True)
class DataConfig:
    """What is searched, for what, and how it is cut into clips."""

    name: str = key("demo", "data set; the others are text-video retrieval", choices=DATA_NAMES)
    root: str = key("", "folder of the data set; empty = data/<name>")
    annotations: str = key(
        "", "moments: a .csv of triplets or a QVHighlights-style .jsonl; retrieval: folder of the annotation files"
    )
    video: str = key("", "search this file (or every video of this folder) instead of a data set; needs queries")
    queries: str = key("", "sentences to look for, ';' between them; empty = the data set's own prompts")
    prompts: str = key("", "cholec80, demo: a csv with columns query,text, or a name in data/prompts; empty = clinical")
    splits: str = key("32/8/40", "Cholec80 split by name", choices=("32/8/40", "40/8/32", "40/40"))
    evaluate: tuple[str, ...] = key(("val", "test"), "splits that are scored", choices=("train", "val", "test", "all"))
    clip_seconds: float = key(0.0, "length of one clip in seconds; 0 = the data set's own", least=0.01)
    frames_per_clip: int = key(0, "frames of a clip; 0 = what the checkpoint takes, else the data set's own")
    stride_seconds: float = key(0.0, "seconds between two scores of a curve; 0 = the data set's own", least=0.01)
    frame_rule: str = key(
        AUTO,
        "retrieval: grid = one frame a second and of too many an even choice (X-CLIP, CLIP4Clip), spread = evenly over "
        "the video (MMAction2); auto = as the benchmark's release",
        choices=(AUTO, "grid", "spread"),
    )
    crop: str = key(
        "center",
        "how 16:9 becomes square; mmaction2 = its bilinear resize to 8/7, then the middle",
        choices=("center", "squash", "pad", "mmaction2"),
    )
    decoder: str = key(AUTO, "auto = the fastest that reads the file right", choices=(AUTO, "decord", "pyav"))
    decode_threads: int = key(0, "reading threads; 0 = one per two cores, at most 8", is_free=True)
    decode_timeout_seconds: float = key(
        120.0, "a decoder that gives no answer for so long is called hung", least=1, is_free=True
    )
    skip_unreadable: bool = key(False, "leave out videos that cannot be read; the report counts them")
    frame_fps: float = key(0.0, "extracted frames per second of video; 0 = found from their numbers")
    frame_base: int = key(-1, "number of the first extracted frame; -1 = found", least=-1)
    features: str = key("", "folder of the feature store; empty = <run.root>/features", is_free=True)


@dataclass(frozen=True)
class ModelConfig:
    """Which weights, and how they are read."""

    weights: str = key("data/demo/model", "file, folder or hub name; untrained:FOLDER = random weights of that shape")
    tokenizer: str = key("", "folder or CLIP merges file; empty = the one that comes with the weights")
    family: str = key(
        AUTO, "auto = what the tensors say; plain CLIP becomes xclip", choices=(AUTO, "xclip", "clip4clip")
    )
    header: str = key(
        AUTO,
        "temporal header; auto = the checkpoint's, mean for plain CLIP",
        choices=(AUTO, "mean", "transformer", "lstm"),
    )
    pooling: str = key(
        AUTO,
        "clip4clip: mmaction2 = mean of raw frames, which the tensors do not tell",
        choices=(AUTO, "clip4clip", "mmaction2"),
    )
    max_words: int = key(0, "token slots of a query; 0 = the checkpoint's, 32 for plain CLIP", least=3)
    padding: str = key(
        AUTO,
        "official = empty word and frame slots take part, as released; auto = official for official checkpoints",
        choices=(AUTO, "official", "masked"),
    )
    head: str = key("", "run_zeroshot: a head.safetensors of run_linear_probe, which scores instead of the sentences")
    attention: str = key("sdpa", "kernel of the towers", choices=("sdpa", "eager", "flash_attention_2"))
    frames_per_forward: int = key(64, "frames in one forward of the vision tower", least=1)


@dataclass(frozen=True)
class EvalConfig:
    """How curves become moments, and what they are compared with."""

    track: str = key(
        "similarity-only",
        "what moments may know beside the similarity; all tracks that there are stand in the report",
        choices=("similarity-only", "+query-set", "+procedure-order", "+temporal"),
    )
    smooth_seconds: float = key(
        0.0, "standard deviation of the Gaussian over a curve, phases and free sentences; 0 = two strides", most=1e5
    )
    query_norm: str = key("mean", "+query-set: how queries compare at a time", choices=("mean", "softmax"))
    softmax_temperature: float = key(0.5, "+query-set with softmax: of the z-scores", least=0.01)
    generator: str = key("union", "where candidates come from", choices=("union", "scan", "watershed"))
    levels: int = key(24, "flooding levels of the watershed", least=1)
    refine_seconds: float = key(0.0, "how far an edge may move at last; 0 = as the Gaussian")
    nms_tiou: float = key(0.3, "a moment that overlaps a better one by more is dropped")
    tool_smooth_seconds: float = key(0.0, "the Gaussian for tools; 0 = one stride", most=1e5)
    tool_gap_seconds: float = key(0.0, "tools: gaps so short are joined; 0 = two strides")
    tool_hysteresis: float = key(
        0.25, "tools: a run ends so far below Otsu's threshold, as a share of the way to the background"
    )
    moments_per_query: int = key(20, "ranked moments kept per video and query", least=1)
    show_moments: int = key(3, "best moments per query printed for one's own recording", least=1)
    background: str = key("", "csv of sentences that fit any picture, taken away from every score; ours = the shipped")
    prompt_sets: tuple[str, ...] = key(
        (), "further csv files of prompts (names in data/prompts, or paths) for mean and range; all = every shipped one"
    )
    two_stage: int = key(
        0, "retrieval: exact scores for so many videos a text, chosen by a dot product; 0 = all of them"
    )
    v2t: str = key(
        "best-caption",
        "retrieval: what a video with several sentences competes with: the best sentence of each video, or all of them",
        choices=("best-caption", "any-caption"),
    )
    bootstrap: int = key(1000, "draws of videos behind the 95 % intervals; 0 = none")


@dataclass(frozen=True)
class FinetuneConfig:
    """How the weights are trained (run_finetune.py)."""

    loss: str = key(
        "multi_positive",
        "every clip in which a sentence holds is a positive; infonce = only its own; masked = others of its class take "
        "no part; classification = softmax over the sentences of the data set",
        choices=("multi_positive", "infonce", "masked", "classification"),
    )
    use_tools: bool = key(True, "the sentences of visible tools are trained too, as further positives of a clip")
    prompt_sets: tuple[str, ...] = key(
        (), "further csv files of prompts (names in data/prompts, or paths): each time one sentence of a class is drawn"
    )
    batch_size: int = key(
        0, "clips behind one step of the optimizer, over all processes; 0 = 64 (demo: 16, retrieval: 128)", most=1e6
    )
    micro_batch_size: int = key(
        0,
        "clips in one forward of one process; auto = found by trying; 0 = all of its share",
        words={AUTO: FIND},
        least=FIND,
        is_free=True,
    )
    drop_last: bool = key(False, "leave out an epoch's last batch where it is smaller")
    epochs: float = key(0.0, "how often every clip is drawn; 0 = 10 (demo: 6, retrieval: 5)", most=1e6)
    lr: float = key(0.0, "peak learning rate of modules that are not pretrained; 0 = 1e-4", most=1e6)
    pretrained_lr_scale: float = key(
        0.0,
        "of the pretrained towers, times lr (coef_lr); 0 = 0.1 (demo: 1, retrieval: 0.01), freeze_layers keeps them",
        most=1e6,
    )
    optimizer: str = key(
        "adamw",
        "bertadam = X-CLIP's and CLIP4Clip's own, mmaction2 = that of its CLIP4Clip, with their schedules",
        choices=("adamw", "bertadam", "mmaction2"),
    )
    weight_decay: float = key(
        0.05, "decoupled, of matrices (bertadam: of all but biases; mmaction2: and norms)", most=1e3
    )
    warmup: float = key(0.1, "share of the steps with a rising learning rate", most=1)
    max_grad_norm: float = key(1.0, "gradients are scaled down to this norm; 0 = never")
    max_logit_scale: float = key(100.0, "the factor on cosines stays below", least=1)
    freeze_layers: int = key(
        -1, "blocks of each tower, from the bottom, that stay as they are, with all embeddings; -1 = none", least=-1
    )
    activation_checkpointing: bool = key(
        False, "towers compute activations twice and keep few: less memory, a third more time", is_free=True
    )
    clip_stride_seconds: float = key(
        0.0, "seconds between the clips of an epoch; 0 = data.stride_seconds", least=0.01, most=1e6
    )
    one_sentence: bool = key(
        False, "retrieval: an epoch has every video once, with a random sentence of its own; else every pair once"
    )
    jitter_seconds: float = key(
        -1.0,
        "a clip moves by up to so much, either way, on the grid of cache_fps; its labels move too; -1 = 2",
        most=1e6,
    )
    crop_scale: float = key(
        0.0,
        "least share of the picture that a random crop keeps; 1 = no crop; 0 = 0.7 (demo, retrieval: 1)",
        least=0.05,
        most=1,
    )
    flip: float = key(0.0, "share of clips that are mirrored; anatomy is not symmetric", most=1)
    colour: float = key(
        -1.0, "strength of changes in brightness, contrast and saturation; -1 = 0.2 (retrieval: 0)", most=1
    )
    balance_phases: bool = key(False, "draw every phase equally often")
    hard_negatives: float = key(
        0.0, "share of a batch that comes from the phase beside another clip's own, same video", most=0.5
    )
    frames: str = key(
        "cache",
        "training frames come from JPEG files made once, or straight from the video",
        choices=("cache", "video"),
    )
    cache: str = key("", "folder of these files and of the validation frames; empty = <run.root>/frames", is_free=True)
    cache_fps: float = key(0.0, "frames per second in them, a multiple of the clips' own; 0 = the clips' own", most=1e3)
    load_threads: int = key(0, "threads that prepare clips; 0 = one per core but one, at most 16", is_free=True)
    validate_every_steps: int = key(0, "0 = after every epoch")
    monitor: str = key(
        AUTO,
        "val number that chooses the best checkpoint; auto = mAP@0.5 (retrieval: t2v/R@1)",
        choices=(AUTO, "mAP@0.5", "AUROC", "AUPRC", "R1@0.5", "mIoU", "t2v/R@1"),
    )
    patience: int = key(0, "stop after so many validations without a better one; 0 = never")
    save_every_steps: int = key(200, "a kill costs no more than so many steps", least=1, is_free=True)
    log_every_steps: int = key(20, "a line in the log and in metrics.jsonl", least=1, is_free=True)
    max_skipped_steps: int = key(20, "so many steps in a row with infinite or NaN gradients end the run", least=1)
    export: str = key("fp32", "precision of the best weights' file", choices=("fp32", "fp16"))


@dataclass(frozen=True)
class ProbeConfig:
    """How a head is trained on frozen features (run_linear_probe.py)."""

    features: str = key(
        AUTO,
        "what is probed: the middle frame of a window, the mean of its frames, the output of the temporal header, the "
        "embedding of models that encode whole clips; auto = window, or video for ms-xclip",
        choices=(AUTO, "frame", "window", "temporal", "video"),
    )
    balance: bool = key(True, "every phase weighs the same, and so do presence and absence of a tool or sentence")
    penalty: float = key(
        0.0, "of the squared weights, 1 / C of scikit-learn; 0 = swept on val from 1e-6 to 1e6", least=1e-9, most=1e9
    )
    monitor: str = key("AUPRC", "val number that chooses penalty and epoch", choices=("AUPRC", "AUROC"))
    refit: str = key(
        "train",
        "what the head with the chosen penalty learns from; with val, val is not scored",
        choices=("train", "train+val"),
    )
    max_steps: int = key(1000, "evaluations after which a fit ends where it is", least=1)
    shots: tuple[int, ...] = key((), "few-shot: numbers of training videos, e.g. 1,2,4,8; empty = none", least=1)
    draws: int = key(
        6, "few-shot: how often the videos are drawn; the range of 6 holds the median with 97 %", least=1, most=1000
    )
    temporal: str = key(
        "none",
        "a small network over all windows of a video, as track +temporal; causal-tcn sees no later window",
        choices=("none", "tcn", "causal-tcn"),
    )
    temporal_epochs: int = key(30, "how often it sees every training video", least=1, most=1e5)


@dataclass(frozen=True)
class Config:
    """One run's choices, by section."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
