"""The linear probe from config to head: features of all labelled videos, fits, few-shot draws, and the head's file."""

import json
import logging
import time
from typing import Any, NamedTuple

from xclip_module.config import Config, free_keys, keys
from xclip_module.errors import DataError
from xclip_module.features.store import FeatureStore
from xclip_module.models.head import Head, save_head
from xclip_module.probe.few_shot import few_shot
from xclip_module.probe.fit import Fitted, Fitter, make_head
from xclip_module.probe.temporal import fit_temporal
from xclip_module.probe.windows import TRAIN, VAL, ProbeData, load_probe_corpus, load_windows, scored_config
from xclip_module.run import distributed
from xclip_module.run.launch import Run
from xclip_module.tasks.localisation import head as heads
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.localisation.head import Probe
from xclip_module.tasks.sentences import UNTRAINED

HEAD = "head.safetensors"
_SEEN = {
    "frame": "the normalised feature of the frame in the middle of a window",
    "window": "mean of the {frames} normalised frame features of a window",
    "temporal": "the window's embedding after the temporal header",
    "video": "the window's video embedding, normalised",
}
_TEMPORAL = {"tcn": "with an offline temporal network", "causal-tcn": "with a causal temporal network"}
_BALANCED = "every phase weighs the same, presence and absence of a tool or sentence too"

log = logging.getLogger(__name__)


class Probed(NamedTuple):
    """What a probe leaves: the configuration of what is scored, everything to score with, and what results say."""

    config: Config
    setup: assemble.Setup
    facts: dict[str, Any]


def probe(config: Config, run: Run) -> Probed:
    """Fits the heads, stores them as `head.safetensors`, and gives all that scoring needs; goes on where it was cut.

    Raises ConfigError, DataError or WeightsError before any work for what cannot be, NonFiniteError for features or
    fits that are not finite.
    """
    start = time.monotonic()
    corpus = load_probe_corpus(config)
    config = scored_config(config, corpus)
    model = assemble.build_model(config, run.world)
    features = heads.choose_features(config, model)
    setup = assemble.probed(config, corpus, model, None, run.world)
    run.status.update(phase="features")
    data = load_windows(config, setup, features, run)
    found: tuple[Head, dict[str, Any]] | None = None
    if run.world.is_main:
        found = _fit(config, setup, data, features, run)
        found[1]["seconds"] = round(time.monotonic() - start, 1)
        save_head(found[0], run.folder / HEAD)
    shared = distributed.gather(found, run.world)[0]
    assert shared is not None, "the main process has fitted"
    head, facts = shared
    rows = tuple(range(len(corpus.queries)))
    return Probed(config, assemble.probed(config, corpus, model, Probe(head, rows, features), run.world), facts)


def _fit(
    config: Config, setup: assemble.Setup, data: ProbeData, features: str, run: Run
) -> tuple[Head, dict[str, Any]]:
    """The head and what metrics.json says of it."""
    section, queries = config.probe, setup.corpus.queries
    train, val = data.of(TRAIN), data.of(VAL)
    log.info("probing %s: %d windows of %d videos", features, sum(len(one.times) for one in train), len(train))
    run.status.update(phase="sweep")
    fitter = Fitter(config, queries, FeatureStore(run.folder / "fits"))
    fitted = fitter.fit(train, val, more=val if section.refit == "train+val" else ())
    _warn_of_unknown(fitted)
    if not bool(fitted.known.any()):
        why = "no query has training windows in which it holds and others in which it does not"
        raise DataError("nothing to learn", setup.corpus.name, why, "other --data.queries, or a smaller stride")
    run.status.update(phase="temporal network")
    network, temporal = fit_temporal(config, queries, fitted, train, val, run)
    run.status.update(phase="few-shot")
    shots = few_shot(fitter, setup, data, fitted) if section.shots else None
    facts = {
        "features": f"{_SEEN[features].format(frames=setup.sampling.frames_per_clip)}, {len(fitted.scale.mean)} wide",
        "windows": sum(len(one.times) for one in train),
        "videos": len(train),
        "stride_seconds": setup.sampling.stride_seconds,
        "balance": _BALANCED if section.balance else "every window weighs the same",
        "solver": "L-BFGS (torch), preconditioned",
        "refit": section.refit,
        "monitor": section.monitor,
        "chosen_on": _chosen_on(config, data),
        "left out": _left_out(setup, data),
        "heads": fitted.kinds,
        "temporal": temporal,
        "few_shot": shots,
    }
    made = {
        "protocol": _protocol(config, fitted, facts),
        "flags": _flags(config, setup),
        "config": _config(config),
        **setup.sampling._asdict(),
    }
    source = heads.source_of(config, setup.model, setup.sampling, features)
    if network is not None:
        source["stride_seconds"] = setup.sampling.stride_seconds
    return make_head(fitted, queries, network, source, made), facts


def _warn_of_unknown(fitted: Fitted) -> None:
    names = [one["name"] for kind in fitted.kinds for one in kind["classes"] if not one["known"]]
    if names:
        log.warning("nothing to learn of %s in the training videos: constant scores", ", ".join(names[:20]))


def _protocol(config: Config, fitted: Fitted, facts: dict[str, Any]) -> str:
    """One line for the results of whoever uses the head."""
    forms = [
        f"{one['form']}, penalty {one['lambda']:.3g}" if one["lambda"] else f"{one['kind']}: nothing to learn"
        for one in fitted.kinds
    ]
    more = f"; {_TEMPORAL[config.probe.temporal]}" if facts["temporal"] else ""
    learned = f"{facts['windows']} windows of {facts['videos']} training videos"
    after = ", refitted with val" if config.probe.refit != "train" else ""
    return f"linear probe of {facts['features']}: {'; '.join(forms)}{more}; {learned}{after}"


def _flags(config: Config, setup: assemble.Setup) -> str:
    """What makes features of this kind, as flags."""
    values = {"model.weights": config.model.weights, "data.crop": config.data.crop}
    if config.model.weights.startswith(UNTRAINED):
        values["run.seed"] = str(config.run.seed)
    values |= {f"data.{name}": value for name, value in setup.sampling._asdict().items()}
    return " ".join(
        f"--{name}={value:g}" if isinstance(value, float) else f"--{name}={value}" for name, value in values.items()
    )


def _config(config: Config) -> dict[str, Any]:
    """What differs from the defaults and is more than a place or a pace."""
    defaults, free = keys(), {*free_keys(), "data.root", "data.annotations"}
    changed = {name: value for name, value in keys(config).items() if value != defaults[name] and name not in free}
    return json.loads(json.dumps(changed))


def _chosen_on(config: Config, data: ProbeData) -> str:
    if config.probe.penalty:
        return "nothing: the penalty was given"
    return f"val, {len(data.of(VAL))} videos"


def _left_out(setup: assemble.Setup, data: ProbeData) -> str:
    missing = {one.id: one.why for one in setup.corpus.missing if one.split == TRAIN}
    train = {video.id for video in setup.corpus.of_split(TRAIN)}
    found = missing | {name: why for name, why in data.skipped.items() if name in train}
    return "; ".join(f"{name} ({why})" for name, why in sorted(found.items())) or "no training video"
