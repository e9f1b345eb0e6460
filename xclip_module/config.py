"""The schema: every key, its type, default, unit and reason; validation; the command line.

Order of precedence, weakest first: the defaults here, a named protocol, the user's `xclip_config.py` (a value that
differs from the default counts as set), `--section.key=value` on the command line.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from xclip_module.errors import ConfigError

AUTO = "auto"


def _key(
    default: Any, reason: str, *, choices: Sequence[str] = (), least: float = -math.inf, most: float = math.inf
) -> Any:
    """A key of the schema; its default is allowed whatever the limits say, for a 0 that means "the data set's own"."""
    return field(default=default, metadata={"reason": reason, "choices": tuple(choices), "least": least, "most": most})


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes and on what it computes."""

    root: str = _key("runs", "folder that holds all runs and the feature store")
    name: str = _key("", "run folder under root; empty = script, data set and UTC time")
    seed: int = _key(42, "seed of everything that is drawn", least=0, most=2**63 - 1)
    device: str = _key(AUTO, "auto = CUDA where there is one", choices=(AUTO, "cpu", "cuda"))
    precision: str = _key(
        AUTO,
        "of the towers; auto = fp16 on CUDA, bf16 on a CPU with bf16 units, else fp32",
        choices=(AUTO, "fp32", "fp16", "bf16"),
    )


@dataclass(frozen=True)
class DataConfig:
    """What is searched, for what, and how it is cut into clips."""

    name: str = _key("demo", "data set", choices=("demo", "cholec80", "moments"))
    root: str = _key("", "folder of the data set; empty = data/<name>")
    annotations: str = _key("", "moments: a .csv of triplets or a QVHighlights-style .jsonl")
    video: str = _key("", "search this file (or every video of this folder) instead of a data set; needs queries")
    queries: str = _key("", "sentences to look for, ';' between them; empty = the data set's own prompts")
    prompts: str = _key(
        "", "cholec80, demo: a csv with columns query,text, or a name in data/prompts; empty = clinical"
    )
    splits: str = _key("32/8/40", "Cholec80 split by name", choices=("32/8/40", "40/8/32", "40/40"))
    evaluate: tuple[str, ...] = _key(("val", "test"), "splits that are scored", choices=("train", "val", "test", "all"))
    clip_seconds: float = _key(0.0, "length of one clip in seconds; 0 = the data set's own", least=0.01)
    frames_per_clip: int = _key(0, "frames of a clip; 0 = what the checkpoint takes, else the data set's own", least=0)
    stride_seconds: float = _key(0.0, "seconds between two scores of a curve; 0 = the data set's own", least=0.01)
    crop: str = _key("center", "how 16:9 becomes square", choices=("center", "squash", "pad"))
    decoder: str = _key(AUTO, "auto = the fastest that reads the file right", choices=(AUTO, "decord", "pyav"))
    decode_threads: int = _key(0, "reading threads; 0 = one per two cores, at most 8", least=0)
    decode_timeout_seconds: float = _key(120.0, "a decoder that gives no answer for so long is called hung", least=1)
    skip_unreadable: bool = _key(False, "leave out videos that cannot be read; the report counts them")
    frame_fps: float = _key(0.0, "extracted frames per second of video; 0 = found from their numbers", least=0)
    frame_base: int = _key(-1, "number of the first extracted frame; -1 = found", least=-1)
    features: str = _key("", "folder of the feature store; empty = <run.root>/features")


@dataclass(frozen=True)
class ModelConfig:
    """Which weights, and how they are read."""

    weights: str = _key(
        "untrained:data/demo/model", "file, folder or hub name; untrained:FOLDER = random weights of that shape"
    )
    tokenizer: str = _key("", "folder or CLIP merges file; empty = the one that comes with the weights")
    family: str = _key(
        AUTO, "auto = what the tensors say; plain CLIP becomes xclip", choices=(AUTO, "xclip", "clip4clip")
    )
    header: str = _key(
        AUTO,
        "temporal header; auto = the checkpoint's, mean for plain CLIP",
        choices=(AUTO, "mean", "transformer", "lstm"),
    )
    max_words: int = _key(0, "token slots of a query; 0 = the checkpoint's, 32 for plain CLIP", least=3)
    padding: str = _key(
        AUTO,
        "official = empty word and frame slots take part, as released; auto = official for official checkpoints",
        choices=(AUTO, "official", "masked"),
    )
    attention: str = _key("sdpa", "kernel of the towers", choices=("sdpa", "eager", "flash_attention_2"))
    frames_per_forward: int = _key(64, "frames in one forward of the vision tower", least=1)


@dataclass(frozen=True)
class EvalConfig:
    """How curves become moments, and what they are compared with."""

    track: str = _key(
        "similarity-only",
        "what moments may know beside the similarity; all tracks that there are stand in the report",
        choices=("similarity-only", "+query-set", "+procedure-order"),
    )
    smooth_seconds: float = _key(
        0.0,
        "standard deviation of the Gaussian over a curve, phases and free sentences; 0 = two strides",
        least=0,
        most=1e5,
    )
    query_norm: str = _key("mean", "+query-set: how queries compare at a time", choices=("mean", "softmax"))
    softmax_temperature: float = _key(0.5, "+query-set with softmax: of the z-scores", least=0.01)
    generator: str = _key("union", "where candidates come from", choices=("union", "scan", "watershed"))
    levels: int = _key(24, "flooding levels of the watershed", least=1)
    refine_seconds: float = _key(0.0, "how far an edge may move at last; 0 = as the Gaussian", least=0)
    nms_tiou: float = _key(0.3, "a moment that overlaps a better one by more is dropped", least=0)
    tool_smooth_seconds: float = _key(0.0, "the Gaussian for tools; 0 = one stride", least=0, most=1e5)
    tool_gap_seconds: float = _key(0.0, "tools: gaps so short are joined; 0 = two strides", least=0)
    tool_hysteresis: float = _key(
        0.25, "tools: a run ends so far below Otsu's threshold, as a share of the way to the background", least=0
    )
    moments_per_query: int = _key(20, "ranked moments kept per video and query", least=1)
    show_moments: int = _key(3, "best moments per query printed for one's own recording", least=1)
    background: str = _key("", "csv of sentences that fit any picture, taken away from every score; ours = the shipped")
    prompt_sets: tuple[str, ...] = _key(
        (), "further csv files of prompts (names in data/prompts, or paths) for mean and range; all = every shipped one"
    )
    bootstrap: int = _key(1000, "draws of videos behind the 95 % intervals; 0 = none", least=0)


@dataclass(frozen=True)
class Config:
    """One run's choices, by section."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def keys(config: Config | None = None) -> dict[str, Any]:
    """Every dotted key and its value, in order of the schema.

    >>> list(keys())[:2]
    ['run.root', 'run.name']
    """
    return {
        f"{section.name}.{key.name}": getattr(getattr(config or Config(), section.name), key.name)
        for section in dataclasses.fields(Config)
        for key in dataclasses.fields(_section_class(section.name))
    }


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy of `config` with dotted keys replaced; text is read as the key's type.

    Raises ConfigError for an unknown key (names the nearest), a wrong type or a value outside the allowed ones.

    >>> override(Config(), {"data.stride_seconds": "4"}).data.stride_seconds
    4.0
    """
    known = keys()
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown config key {name}", why=nearest(name, known), attempt="--help lists every key")
        section, key = name.split(".")
        part = getattr(config, section)
        parsed = _parse(name, value) if isinstance(value, str) else value
        config = dataclasses.replace(config, **{section: dataclasses.replace(part, **{key: parsed})})
    return config


def resolve(
    user: Config, *, protocol: Mapping[str, Any] | None = None, arguments: Mapping[str, Any] | None = None
) -> Config:
    """The configuration of a run: defaults < protocol < user < arguments, validated.

    >>> resolve(Config(), protocol={"data.crop": "pad"}, arguments={"data.crop": "squash"}).data.crop
    'squash'
    """
    for section in dataclasses.fields(Config):
        if not isinstance(getattr(user, section.name), _section_class(section.name)):
            raise ConfigError(f"config section {section.name}", why=f"found {getattr(user, section.name)!r}")
    defaults = keys()
    chosen = {name: value for name, value in keys(user).items() if value != defaults[name]}
    config = override(override(override(Config(), protocol or {}), chosen), arguments or {})
    for name, value in keys(config).items():
        _check(name, value)
    return config


def parse_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], str]:
    """`--section.key=value` (or two words) and `--protocol=name` as (values, protocol name).

    >>> parse_arguments(["--data.root=/x", "--data.name", "cholec80", "--protocol=p"])
    ({'data.root': '/x', 'data.name': 'cholec80'}, 'p')
    """
    values: dict[str, str] = {}
    protocol = ""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"stray argument {word!r}", why="expected --section.key=value", attempt="--help")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"--{name} has no value", why="expected --section.key=value", attempt="--help")
            value = rest.pop(0)
        if not value.isascii() and value != value.encode(errors="replace").decode():
            raise ConfigError(f"--{name}={value}", why="it is no UTF-8 text", attempt="rename that file or folder")
        if name == "protocol":
            protocol = value
        else:
            values[name] = value
    return values, protocol


def describe() -> str:
    """Every key with its default and reason, for --help."""
    lines = []
    for section in dataclasses.fields(Config):
        part = _section_class(section.name)
        lines.append(f"\n{section.name}: {part.__doc__}")
        for key in dataclasses.fields(part):
            choices = f" [{' | '.join(key.metadata['choices'])}]" if key.metadata["choices"] else ""
            lines.append(
                f"  --{section.name}.{key.name}={_text(key.default)}\n        {key.metadata['reason']}{choices}"
            )
    return "\n".join(lines)


def sections() -> dict[str, type]:
    """The sections and their classes."""
    return {section.name: _section_class(section.name) for section in dataclasses.fields(Config)}


def to_json(config: Config) -> dict[str, Any]:
    """The configuration as nested primitives, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """A clause that names the closest known word, or all of them.

    >>> nearest("data.stride_second", ["data.stride_seconds", "data.root"])
    'did you mean data.stride_seconds?'
    """
    close = [word for word in known if word.startswith(name) or word.split(".")[-1] == name]
    close = close or difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _section_class(section: str) -> type:
    return get_type_hints(Config)[section]


def _key_type(name: str) -> Any:
    section, key = name.split(".")
    return get_type_hints(_section_class(section))[key]


def _parse(name: str, text: str) -> Any:
    kind = _key_type(name)
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() in words:
            return words[text.lower()]
    elif kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    elif kind is str:
        return text
    else:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    raise ConfigError(f"--{name}={text}", why=f"expected {_kind_name(kind)}")


def _check(name: str, value: Any) -> None:
    kind = _key_type(name)
    section, key = name.split(".")
    definition = next(f for f in dataclasses.fields(_section_class(section)) if f.name == key)
    rules, words = definition.metadata, value if isinstance(value, tuple) else (value,)
    accepted: Any = {float: (int, float), tuple[str, ...]: (tuple,)}.get(kind, (kind,))
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"config key {name}", why=f"found {value!r}, expected {_kind_name(kind)}")
    for word in words if rules["choices"] else ():
        if word not in rules["choices"]:
            found = nearest(str(word), rules["choices"])
            raise ConfigError(f"config key {name}", why=f"found {word!r}, expected one of {rules['choices']}; {found}")
    if kind in (int, float) and value != definition.default:
        _check_range(name, value, rules)


def _check_range(name: str, value: float, rules: Mapping[str, Any]) -> None:
    least, most = rules["least"], rules["most"]
    if not value >= least:
        raise ConfigError(f"config key {name}", why=f"found {value!r}, expected at least {least}")
    if not value <= most or value == math.inf:
        expected = "a finite number" if most == math.inf else f"at most {most}"
        raise ConfigError(f"config key {name}", why=f"found {value!r}, expected {expected}")


def _kind_name(kind: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(kind, "words with ',' between them")


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
