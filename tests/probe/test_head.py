"""What of a model's features is probed."""

import pytest
from support.heads_factory import MODELS

from xclip_module.config import ProbeConfig
from xclip_module.errors import ConfigError
from xclip_module.probe.head import choose_features


@pytest.mark.parametrize(
    ("name", "known"),
    [("mean", ("window", "frame")), ("transformer", ("window", "frame", "temporal")), ("ms-xclip", ("video",))],
)
def test_only_features_that_a_model_has_are_probed(name, known):
    model = MODELS[name]()
    assert choose_features(ProbeConfig(), model, weights="w") == known[0]
    for features in ("frame", "window", "temporal", "video"):
        section = ProbeConfig(features=features)
        if features in known:
            assert choose_features(section, model, weights="w") == features
            continue
        with pytest.raises(ConfigError, match=rf"probe.features={features}: .* has {', '.join(known)}; try: --probe"):
            choose_features(section, model, weights="w")
