"""The linear probe from config to head: features of all labelled videos, fits, few-shot draws, and the head's file."""

import dataclasses
import json
import logging
import time
from typing import Any

from xclip_module.config import Config, ModelConfig, ProbeConfig, free_keys, keys
from xclip_module.errors import ConfigError, DataError
from xclip_module.features.scoring import known_features
from xclip_module.features.store import FeatureStore
from xclip_module.interface import Corpus, VideoTextModel
from xclip_module.models.head import Head, save_head
from xclip_module.probe.corpus import TRAIN, VAL
from xclip_module.probe.fit import Fitted, Fitter, few_shot, make_head
from xclip_module.probe.temporal import fit_temporal
from xclip_module.probe.windows import ProbeData, load_windows
from xclip_module.run import distributed, precision
from xclip_module.run.folder import Run
from xclip_module.sections import AUTO
from xclip_module.tasks import Task
from xclip_module.tasks.encode import feature_store
from xclip_module.tasks.localisation.judge import Judge
from xclip_module.tasks.localisation.load import LocalisationData
from xclip_module.tasks.localisation.scorers import HeadScorer, query_rows, source_of
from xclip_module.tasks.localisation.task import LocalisationTask
from xclip_module.tasks.localisation.windows import WindowEncoder, sampling_of
from xclip_module.tasks.weights import UNTRAINED, Origin, build_model

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


def fit_head(config: Config, loaded: LocalisationData, run: Run) -> tuple[Task, HeadScorer]:
    """The stored head as the task's scorer; see `run.fit`."""
    start = time.monotonic()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, evaluate=loaded.splits))
    encoder, features = probed_encoder(config, run)
    run.status.update(phase="features")
    data = load_probe_windows(config, loaded.corpus, encoder, features, run)
    fitted: tuple[Head, dict[str, Any]] | None = None
    if run.world.is_main:
        fitted = _fit(config, loaded, encoder, data, features, run)
        fitted[1]["seconds"] = round(time.monotonic() - start, 1)
        save_head(fitted[0], run.folder / HEAD)
        log.info("head: %s", run.folder / HEAD)
    shared = distributed.gather(fitted, run.world)[0]
    assert shared is not None, "the main process has fitted"
    head, facts = shared
    rows = query_rows(head, loaded.corpus)
    scorer = HeadScorer(encoder, head.to(run.world.device), rows, features, Origin(probe=facts))
    return LocalisationTask(config), scorer


def probed_encoder(config: Config, run: Run) -> tuple[WindowEncoder, str]:
    """The weights with the windows that are probed, and what of their features is."""
    device = run.world.device
    model = build_model(config.model, config.data, seed=config.run.seed, device=device)
    features = choose_features(config.probe, model, weights=config.model.weights)
    sampling = sampling_of(config.data, model, weights=config.model.weights)
    return WindowEncoder(model, sampling, precision.choose(config.run.precision, device)), features


def load_probe_windows(config: Config, corpus: Corpus, encoder: WindowEncoder, features: str, run: Run) -> ProbeData:
    """The windows of all labelled videos, from the store where they are."""
    encoding = encoder.encoding(
        config.data,
        feature_store(config.data, root=config.run.root),
        frames_per_forward=config.model.frames_per_forward,
        device=run.world.device,
    )
    return load_windows(corpus, encoder, encoding, features=features, run=run)


def choose_features(section: ProbeConfig, model: VideoTextModel, *, weights: str) -> str:
    """What is probed. Raises ConfigError for what this model has not."""
    available = known_features(model)
    if section.features == AUTO:
        return available[0]
    if section.features not in available:
        why = f"{weights} ({model.protocol}) has {', '.join(available)}"
        attempt = f"--probe.features={available[0]}"
        raise ConfigError(f"probe.features={section.features}", why=why, attempt=attempt)
    return section.features


def _fit(
    config: Config, loaded: LocalisationData, encoder: WindowEncoder, data: ProbeData, features: str, run: Run
) -> tuple[Head, dict[str, Any]]:
    """The head and what metrics.json says of it."""
    section, corpus, queries = config.probe, loaded.corpus, loaded.corpus.queries
    train, val = data.of(TRAIN), data.of(VAL)
    log.info("probing %s: %d windows of %d videos", features, sum(len(video.times) for video in train), len(train))
    run.status.update(phase="sweep")
    fitter = Fitter(section, queries, FeatureStore(run.folder / "fits"))
    fitted = fitter.fit(train, val, more=val if section.refit == "train+val" else ())
    _warn_of_unknown(fitted)
    if not bool(fitted.known.any()):
        why = "no query has training windows in which it holds and others in which it does not"
        raise DataError("nothing to learn", corpus.name, why, "other --data.queries, or a smaller stride")
    run.status.update(phase="temporal network")
    network, temporal = fit_temporal(section, queries, fitted, train=train, val=val, seed=config.run.seed, run=run)
    run.status.update(phase="few-shot")
    shots = None
    if section.shots:
        judging = Judge(corpus, config.eval, encoder.sampling.stride_seconds)
        shots = few_shot(fitter, data, fitted, judging=judging, splits=loaded.splits, seed=config.run.seed)
    facts = {
        **_facts(section, encoder, fitted, data, features),
        "left out": _left_out(corpus, data),
        "heads": fitted.kinds,
        "temporal": temporal,
        "few_shot": shots,
    }
    made = {
        "protocol": _protocol(section, fitted, facts),
        "flags": _flags(config.model, encoder, crop=config.data.crop, seed=config.run.seed),
        "config": _changed(config),
        **encoder.sampling._asdict(),
    }
    source = source_of(encoder.model, encoder.sampling, features=features, crop=config.data.crop)
    if network is not None:
        source["stride_seconds"] = encoder.sampling.stride_seconds
    return make_head(fitted, queries, network, source, made), facts


def _facts(
    section: ProbeConfig, encoder: WindowEncoder, fitted: Fitted, data: ProbeData, features: str
) -> dict[str, Any]:
    train, sampling = data.of(TRAIN), encoder.sampling
    chosen_on = "nothing: the penalty was given" if section.penalty else f"val, {len(data.of(VAL))} videos"
    return {
        "features": f"{_SEEN[features].format(frames=sampling.frames_per_clip)}, {len(fitted.scale.mean)} wide",
        "windows": sum(len(video.times) for video in train),
        "videos": len(train),
        "stride_seconds": sampling.stride_seconds,
        "balance": _BALANCED if section.balance else "every window weighs the same",
        "solver": "L-BFGS (torch), preconditioned",
        "refit": section.refit,
        "monitor": section.monitor,
        "chosen_on": chosen_on,
    }


def _warn_of_unknown(fitted: Fitted) -> None:
    names = [query["name"] for kind in fitted.kinds for query in kind["classes"] if not query["known"]]
    if names:
        log.warning("nothing to learn of %s in the training videos: constant scores", ", ".join(names[:20]))


def _protocol(section: ProbeConfig, fitted: Fitted, facts: dict[str, Any]) -> str:
    """One line for the results of whoever uses the head."""
    forms = [
        f"{kind['form']}, penalty {kind['lambda']:.3g}" if kind["lambda"] else f"{kind['kind']}: nothing to learn"
        for kind in fitted.kinds
    ]
    more = f"; {_TEMPORAL[section.temporal]}" if facts["temporal"] else ""
    learned = f"{facts['windows']} windows of {facts['videos']} training videos"
    after = ", refitted with val" if section.refit != "train" else ""
    return f"linear probe of {facts['features']}: {'; '.join(forms)}{more}; {learned}{after}"


def _flags(section: ModelConfig, encoder: WindowEncoder, *, crop: str, seed: int) -> str:
    """What makes features of this kind, as flags."""
    values: dict[str, Any] = {"model.weights": section.weights, "data.crop": crop}
    if section.weights.startswith(UNTRAINED):
        values["run.seed"] = str(seed)
    values |= {f"data.{name}": value for name, value in encoder.sampling._asdict().items()}
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in values.items()}
    return " ".join(f"--{name}={value}" for name, value in shown.items())


def _changed(config: Config) -> dict[str, Any]:
    """What differs from the defaults and is more than a place or a pace."""
    defaults, free = keys(), {*free_keys(), "data.root", "data.annotations"}
    changed = {name: value for name, value in keys(config).items() if value != defaults[name] and name not in free}
    return json.loads(json.dumps(changed))


def _left_out(corpus: Corpus, data: ProbeData) -> str:
    reasons = {missing.id: missing.why for missing in corpus.missing if missing.split == TRAIN}
    train = {video.id for video in corpus.of_split(TRAIN)}
    reasons |= {name: why for name, why in data.skipped.items() if name in train}
    return "; ".join(f"{name} ({why})" for name, why in sorted(reasons.items())) or "no training video"
