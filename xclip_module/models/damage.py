"""What damaged and foreign weight files make their readers raise, as one kind of error."""

import contextlib
import pickle
from collections.abc import Iterator

from xclip_module.errors import UserError, WeightsError


@contextlib.contextmanager
def weights_errors(source: object, what: str = "unreadable checkpoint") -> Iterator[None]:
    """Turns whatever a damaged or foreign file makes its readers raise into one WeightsError that names the source.

    Running out of memory and our own errors pass.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    # Every reader has its own classes, transformers' configs and the tokenizers even plain Exceptions.
    except Exception as error:
        # torch's class by its name: to look for a file must not cost the seconds that importing torch takes.
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            raise
        attempt = "download or copy the file again"
        raise WeightsError(what, str(source)[:200], _reason(error), attempt) from error


def _reason(error: Exception) -> str:
    """Why, in our words where torch's own advise to switch the safety off."""
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
        return "it holds more than tensors, or is no weight file; nothing in it was run"
    return f"{type(error).__name__} {' '.join(str(error).split())}"[:300].strip()
