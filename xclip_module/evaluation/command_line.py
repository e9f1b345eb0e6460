"""What the commands of this room have in common: the result to standard output, or one error line and its exit code."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from xclip_module.errors import DiskError, UserError
from xclip_module.run import storage


def print_result(produce: Callable[[], str]) -> int:
    """Prints what `produce` returns, or its UserError as one line on standard error; the exit code of `errors`."""
    try:
        text = produce()
        with storage.disk_errors(Path("standard output"), is_users_choice=True):
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        if isinstance(error, DiskError):
            # What could not be written would be tried again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error.exit_code
    return 0
