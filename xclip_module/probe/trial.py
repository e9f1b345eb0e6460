"""What a probe's fits will cost, from fits to one video; for `--check`."""

import time
from collections.abc import Sequence

from xclip_module.config import ProbeConfig
from xclip_module.interface import Query
from xclip_module.probe.fit import learnable
from xclip_module.probe.windows import ProbeData, rows_of, stacked
from xclip_module.training.linear import fit, make_problem

# A penalty of the middle, and how many the sweep tries.
_TRIAL_PENALTY = 1.0
_PENALTIES = 15


def try_fits(section: ProbeConfig, queries: Sequence[Query], data: ProbeData) -> float:
    """Seconds of a whole sweep on these windows, from one fit of each kind of query."""
    start = time.monotonic()
    inputs, labels, known = stacked(data.videos)
    for kind in dict.fromkeys(query.kind for query in queries):
        is_phase = kind == "phase"
        rows = learnable(labels, known, rows_of(queries, kind), is_exclusive=is_phase)
        if rows:
            problem = make_problem(
                inputs, labels[:, rows], known[:, rows], is_exclusive=is_phase, is_balanced=section.balance
            )
            fit(problem, _TRIAL_PENALTY)
    return (time.monotonic() - start) * (1 if section.penalty else _PENALTIES)
