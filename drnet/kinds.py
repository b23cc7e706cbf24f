"""The kinds of models that runs train, by the name in their settings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from drnet.autoencoder import Autoencoder, AutoencoderConfig
from drnet.config import DrNetConfig
from drnet.model import DrNet
from drnet.predictor import PosePredictor, PredictorConfig


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        config: class of its settings; each has a default, and `to_json`.
        model: the class, made of its settings.
    """

    config: type[Any]
    model: Callable[[Any], nn.Module]


KINDS: dict[str, Kind] = {
    "drnet": Kind(DrNetConfig, DrNet),
    "autoencoder": Kind(AutoencoderConfig, Autoencoder),
    "predictor": Kind(PredictorConfig, PosePredictor),
}


def kind_of(config: Any) -> str:
    """Return the name of the kind that settings belong to."""
    return next(name for name, kind in KINDS.items() if isinstance(config, kind.config))
