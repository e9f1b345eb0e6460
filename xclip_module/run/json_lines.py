"""Files of one JSON object a line, as QVHighlights and others write them."""

import json
import shlex
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from xclip_module.errors import DataError


def read_json_lines(path: Path, required: Set[str], expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object with where it stands, "file, line N"; empty lines are passed over.

    required: keys that every object must have.  expected: what an object holds, in words for the error.
    Raises DataError with file and line for what is no text, no JSON, no object or lacks a key.
    """
    try:
        # Windows editors put a mark before the first line, which JSON does not allow.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        attempt = f"iconv -f latin1 -t utf-8 {shlex.quote(str(path))}"
        raise DataError("unreadable file", path, f"not UTF-8 text: {error}", attempt) from error
    except OSError as error:
        raise DataError(
            "unreadable file", path, error.strerror or str(error), f"ls -l {shlex.quote(str(path.parent))}"
        ) from error
    # JSON allows what splitlines() takes for the end of a line inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        line_name = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError("not JSON", line_name, f"{error}; expected {expected}") from error
        absent = sorted(required - set(row)) if isinstance(row, dict) else sorted(required)
        if absent or not isinstance(row, dict):
            raise DataError("wrong line", line_name, f"missing {', '.join(absent)}; expected {expected}")
        yield line_name, row
