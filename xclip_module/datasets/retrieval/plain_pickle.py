"""Pickle files of plain values, read without running anything: a pickle can otherwise name any function and call it."""

import pickle
import shlex
from pathlib import Path
from typing import Any, NoReturn

from xclip_module.errors import DataError

# What a damaged pickle can make the reader stumble over.
_DAMAGE = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class _Refused(Exception):
    """The pickle asks for more than containers, text and numbers."""


class _PlainUnpickler(pickle.Unpickler):
    """Knows no class and no function, so that a pickle's call has nothing to call."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("it asks for an object outside the file")


def read_plain_pickle(path: Path) -> Any:
    """The dicts, lists, tuples, texts, numbers, booleans and None of a pickle file.

    Text that Python 2 wrote as bytes is read as UTF-8.
    Raises DataError, before anything is run, for a pickle that asks for a class or function, and for a damaged one.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except _Refused as error:
        request = f"{error}, and could run anything; expected only dicts, lists, texts and numbers"
        raise DataError("pickle refused", path, request, "get the file from its publisher again") from error
    except OSError as error:
        attempt = f"ls -l {shlex.quote(str(path))}"
        raise DataError("unreadable file", path, error.strerror or str(error), attempt) from error
    except (*_DAMAGE, MemoryError) as error:
        damage = f"damaged or no pickle: {error or type(error).__name__}"
        raise DataError("unreadable pickle", path, damage, "get the file from its publisher again") from error
