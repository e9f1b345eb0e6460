"""A head over frozen features: scores of every query for every window of a video, and its file.

M windows, D width of a window's features, Q queries.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from xclip_module.errors import WeightsError
from xclip_module.interface import Query
from xclip_module.models.damage import weights_errors
from xclip_module.models.hub import HEAD_FLAG, check_head
from xclip_module.models.temporal_head import TemporalHead
from xclip_module.run import storage

FORMAT = "xclip_module.head"
_VERSION = 1
# Log-odds of what the head never saw: no other score comes near, and it is finite.
_NEVER = -100.0
_TENSORS = ("mean", "inverse", "weight", "bias", "known")


class Head(NamedTuple):
    """A linear head and, where one was trained, a small network over all windows of a video.

    mean, inverse: [D] take the training windows' mean away and divide by their deviation (inverse 0 = constant).
    weight, bias: [Q, D] and [Q].  known: [Q] bool, False for a query of which training had no example or nothing else.
    source: of which features it is: what must be the same wherever it is used.  made: how it came to be, for people.
    """

    queries: tuple[Query, ...]
    mean: Tensor
    inverse: Tensor
    weight: Tensor
    bias: Tensor
    known: Tensor
    temporal: TemporalHead | None
    source: Mapping[str, Any]
    made: Mapping[str, Any]

    def standardised(self, features: Tensor) -> Tensor:
        """Features [M, D] as the head was trained on."""
        return (features - self.mean) * self.inverse

    def scores(self, features: Tensor) -> Tensor:
        """Log-odds [Q, M] of every query in every window from features [M, D]; with a temporal network [2Q, M].

        The odds of a phase are against all other phases, those of tools and free sentences against their absence. A
        query that training did not know has the same low score everywhere.
        """
        with torch.inference_mode():
            inputs = self.standardised(features)
            kinds = [query.kind for query in self.queries]
            rows = [log_odds(self.weight @ inputs.T + self.bias[:, None], kinds, self.known)]
            if self.temporal is not None:
                rows.append(log_odds(self.temporal(inputs)[-1], kinds, self.known))
            return torch.cat(rows)

    def to(self, device: torch.device) -> "Head":
        """A copy on another device."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return self._replace(**moved, temporal=None if self.temporal is None else self.temporal.to(device))


def log_odds(logits: Tensor, kinds: Sequence[str], known: Tensor) -> Tensor:
    """Logits [Q, M] as log-odds: phases, of which one holds at a time, against all other known phases.

    >>> log_odds(torch.tensor([[0.0], [0.0], [0.0]]), ["phase"] * 3, torch.tensor([True] * 3)).flatten().tolist()
    [-0.6931471824645996, -0.6931471824645996, -0.6931471824645996]
    """
    odds = logits.clone()
    phases = [row for row, kind in enumerate(kinds) if kind == "phase" and known[row]]
    for row in phases:
        # log p / (1 - p) of a softmax: one exponential against the sum of the others.
        odds[row] = logits[row] - torch.logsumexp(logits[[other for other in phases if other != row]], dim=0)
    odds[~known] = _NEVER
    return odds


def save_head(head: Head, path: Path) -> None:
    """Writes a safetensors file with everything in it, atomically; nothing in it is ever executed."""
    tensors = {name: getattr(head, name).detach().cpu().contiguous() for name in _TENSORS}
    temporal = None
    if head.temporal is not None:
        temporal = head.temporal.spec._asdict()
        state = head.temporal.state_dict()
        tensors |= {f"temporal.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {
        "version": _VERSION,
        "queries": [list(query) for query in head.queries],
        "source": dict(head.source),
        "made": dict(head.made),
        "temporal": temporal,
    }
    # In one entry: the order of several changes from save to save.
    text = json.dumps({"format": FORMAT, "digest": _digest(tensors, header), "head": header}, sort_keys=True)
    storage.write_bytes(path, save(tensors, metadata={"head": text}))


def load_head(path: Path) -> Head:
    """The head of a file. Raises WeightsError for a file that is missing, damaged, or no head."""
    check_head(path)
    with weights_errors(path, "unreadable head"):
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            # Copies, which lie where a product of matrices gives the bits that it gave before saving.
            tensors = {name: file.get_tensor(name).clone() for name in names}
        described = json.loads(metadata.get("head", "{}"))
        if described.get("format") != FORMAT:
            formats = f"its format is {described.get('format')!r}, expected {FORMAT!r}"
            raise WeightsError("not a head", path, formats, HEAD_FLAG)
        header = described["head"]
        if described.get("digest") != _digest(tensors, header):
            raise WeightsError("damaged head", path, "its SHA-256 is not the one noted", "train or copy it again")
        if header["version"] != _VERSION:
            versions = f"version {header['version']}, this program reads {_VERSION}"
            raise WeightsError("head of another version", path, versions, "train it again")
        return Head(
            queries=tuple(Query(*query) for query in header["queries"]),
            **{name: tensors[name] for name in _TENSORS},
            temporal=_temporal(header["temporal"], tensors),
            source=header["source"],
            made=header["made"],
        )


def _temporal(spec: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> TemporalHead | None:
    if spec is None:
        return None
    network = TemporalHead(**spec)
    prefix = "temporal."
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    network.load_state_dict(state)
    return network.eval()


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
