"""The user's values: `xclip_config.py` beside the script, a named protocol below it, the command line above it."""

import difflib
import re
import runpy
from collections.abc import Sequence
from pathlib import Path

from xclip_module import config as schema
from xclip_module.config import Config
from xclip_module.errors import ConfigError
from xclip_module.run.protocols import find_protocol


def load_config(path: Path, arguments: Sequence[str]) -> Config:
    """The validated configuration: protocol < the user's file < arguments.

    Raises ConfigError for a file that does not run or holds an unknown key.
    """
    values, protocol = schema.parse_arguments(arguments)
    return schema.resolve(_user_config(path), protocol=find_protocol(protocol), arguments=values)


def _user_config(path: Path) -> Config:
    if not path.is_file():
        return Config()
    try:
        # Run, not imported: workers of a spawned process would import it again, and see an edit made meanwhile.
        user = runpy.run_path(str(path)).get("CONFIG")
    except TypeError as error:
        # What a dataclass raises for a key it does not have.
        raise ConfigError("config file", path, _explain(str(error)), "python run_zeroshot.py --help") from error
    except Exception as error:
        raise ConfigError("config file", path, f"{type(error).__name__}: {error}", "mend that line") from error
    if not isinstance(user, Config):
        raise ConfigError("config file", path, "it sets no CONFIG = Config(…)", "git checkout xclip_config.py")
    return user


def _explain(message: str) -> str:
    """The nearest key for `DataConfig.__init__() got an unexpected keyword argument 'rot'`."""
    refusal = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    if not refusal:
        return message
    class_name, key = refusal.groups()
    section = next((name for name, kind in schema.sections().items() if kind.__name__ == class_name), "")
    every = schema.keys()
    keys = [name.split(".")[1] for name in every if name.startswith(f"{section}.")]
    # `Config(dta=…)` names a section, which has no dot.
    close = difflib.get_close_matches(key, keys or list(schema.sections()), n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(keys)}"
    return f"unknown key {key} in {class_name}; {hint}"
