"""Reading the configuration: order of precedence, validation, the command line. The keys are in `sections`.

Order of precedence, weakest first: the defaults there, a named protocol, the user's `xclip_config.py` (a value that
differs from the default counts as set), `--section.key=value` on the command line.
"""

import contextlib
import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from xclip_module.errors import ConfigError
from xclip_module.sections import Config, DataConfig, EvalConfig, FinetuneConfig, ModelConfig, ProbeConfig, RunConfig

# The keys that hold several values, and what each of these is.
_SEVERAL: dict[Any, type] = {tuple[str, ...]: str, tuple[int, ...]: int}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def keys(config: Config | None = None) -> dict[str, Any]:
    """Every dotted key and its value, in order of the schema.

    >>> list(keys())[:2]
    ['run.root', 'run.name']
    """
    config = config or Config()
    return {
        f"{section}.{key.name}": getattr(getattr(config, section), key.name)
        for section, part in sections().items()
        for key in dataclasses.fields(part)
    }


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy of `config` with dotted keys replaced; text is read as the key's type.

    Raises ConfigError for an unknown key (names the nearest), a wrong type or a value outside the allowed ones.

    >>> override(Config(), {"data.stride_seconds": "4"}).data.stride_seconds
    4.0
    """
    defaults = keys()
    for name, value in values.items():
        if name not in defaults:
            hint = nearest(name, defaults)
            raise ConfigError(f"unknown config key {name}", why=hint, attempt="--help lists every key")
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
    # The user's file is Python: nothing has looked at its types yet.
    for section, part in sections().items():
        if not isinstance(getattr(user, section), part):
            raise ConfigError(f"config section {section}", why=f"found {getattr(user, section)!r}")
    # A dataclass does not remember which of its values were written down: those that differ were.
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
        # Bytes of the command line that are no UTF-8 arrive as lone surrogates, which no file or log can hold.
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
    for section, part in sections().items():
        lines.append(f"\n{section}: {part.__doc__}")
        for key in dataclasses.fields(part):
            choices = f" [{' | '.join(key.metadata['choices'])}]" if key.metadata["choices"] else ""
            default = ",".join(key.default) if isinstance(key.default, tuple) else key.default
            lines.append(f"  --{section}.{key.name}={default}\n        {key.metadata['reason']}{choices}")
    return "\n".join(lines)


def free_keys() -> set[str]:
    """Dotted keys that say where and how fast, not what: a run may resume with another value of these."""
    return {name for name in keys() if _definition(name).metadata["is_free"]}


def sections() -> dict[str, Any]:
    """The sections and their classes."""
    return get_type_hints(Config)


def to_json(config: Config) -> dict[str, Any]:
    """The configuration as nested primitives, ready for JSON."""
    # Through text, so that it equals what is read back: tuples are lists there.
    return json.loads(json.dumps(dataclasses.asdict(config)))


def nearest(name: str, words: Sequence[str] | Mapping[str, Any]) -> str:
    """A clause that names the closest of the words, or all of them.

    >>> nearest("data.stride_second", ["data.stride_seconds", "data.root"])
    'did you mean data.stride_seconds?'
    """
    # A beginning, or a key without its section, is closer than any likeness of letters.
    close = [word for word in words if word.startswith(name) or word.split(".")[-1] == name]
    close = close or difflib.get_close_matches(name, list(words), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(words)}"


def _definition(name: str) -> dataclasses.Field:
    section, key = name.split(".")
    return sections()[section].__dataclass_fields__[key]


def _parse(name: str, text: str) -> Any:
    kind: Any = _definition(name).type
    aliases = _definition(name).metadata["words"]
    if text in aliases:
        return aliases[text]
    if kind is bool and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if kind is not bool:
        with contextlib.suppress(ValueError):
            if kind not in _SEVERAL:
                return kind(text)
            return tuple(_SEVERAL[kind](part.strip()) for part in text.split(",") if part.strip())
    raise ConfigError(f"--{name}={text}", why=f"expected {_kind_name(kind)}")


def _check(name: str, value: Any) -> None:
    definition = _definition(name)
    kind: Any = definition.type
    rules, words = definition.metadata, value if isinstance(value, tuple) else (value,)
    part = _SEVERAL.get(kind, kind)
    accepted = (int, float) if part is float else (part,)
    # For Python True is an int too.
    is_right = [isinstance(word, accepted) and (part is bool) == isinstance(word, bool) for word in words]
    if isinstance(value, tuple) != (kind in _SEVERAL) or not all(is_right):
        raise ConfigError(f"config key {name}", why=f"found {value!r}, expected {_kind_name(kind)}")
    for word in words if rules["choices"] else ():
        if word not in rules["choices"]:
            hint = nearest(str(word), rules["choices"])
            raise ConfigError(f"config key {name}", why=f"found {word!r}, expected one of {rules['choices']}; {hint}")
    # The default may lie outside the limits: a 0 that stands for the data set's own value.
    for word in words if part in (int, float) and value != definition.default else ():
        _check_range(name, word, rules)


def _check_range(name: str, value: float, rules: Mapping[str, Any]) -> None:
    least, most = rules["least"], rules["most"]
    # Not `value < least`, which NaN would pass.
    if not value >= least:
        raise ConfigError(f"config key {name}", why=f"found {value!r}, expected at least {least}")
    if not value <= most or value == math.inf:
        expected = "a finite number" if most == math.inf else f"at most {most}"
        raise ConfigError(f"config key {name}", why=f"found {value!r}, expected {expected}")


def _kind_name(kind: Any) -> str:
    plural = "whole numbers" if kind == tuple[int, ...] else "words"
    return _KIND_NAMES.get(kind, f"{plural} with ',' between them")
