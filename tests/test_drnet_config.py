"""Settings: networks that fit each other, and runs that an earlier version wrote."""

from typing import Any

import pytest
import torch

from drnet.config import DrNetConfig
from drnet.model import DrNet
from drnet.networks import DcganDecoder, DcganEncoder
from drnet.resnet import ResNet18Encoder
from drnet.swap import swap
from drnet.vgg import Vgg16Decoder, Vgg16Encoder

# What the first version of the run format wrote for a model: it has to mean the same for ever.
FIRST = {
    "alpha": 0.1,
    "alpha_start": 0.02,
    "alpha_warmup": 8000,
    "beta": 0.01,
    "beta_warmup": 12000,
    "centred": "content",
    "channels": 3,
    "content_dim": 24,
    "content_pooled": True,
    "detach_first_pose": False,
    "detach_target": False,
    "initialisation": "torch",
    "pose_dim": 10,
    "similarity": "whitened",
    "size": 32,
    "unit_norm": True,
    "width": 32,
}


def test_settings_of_an_earlier_version_mean_what_they_meant() -> None:
    config = DrNetConfig(**FIRST)
    assert (config.content_network, config.pose_network, config.decoder_network) == ("dcgan", "dcgan", "dcgan")
    assert (config.reconstruction, config.negatives) == ("mean", "shift")
    assert not any((config.skips, config.fifth_stage, config.discriminator_beta, config.inverted_labels))


def test_weights_of_an_earlier_version_have_the_names_and_shapes_of_this_one() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in DrNet(DrNetConfig(**FIRST)).state_dict().items()}
    wide = {0: (32, 3, 4, 4), 3: (64, 32, 4, 4), 6: (128, 64, 4, 4)}
    for part, dim, kernel in (("content_encoder", 24, 1), ("pose_encoder", 10, 4)):
        for number, shape in wide.items():
            assert shapes.pop(f"{part}.features.{number}.weight") == shape
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                assert shapes.pop(f"{part}.features.{number + 1}.{name}") in ((shape[0],), ())
        assert shapes.pop(f"{part}.last.weight") == (dim, 128, kernel, kernel)
        assert shapes.pop(f"{part}.last.bias") == (dim,)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert shapes.pop(f"content_encoder.norm.{name}") in ((24,), ())
    for number, shape in {0: (34, 128, 4, 4), 3: (128, 64, 4, 4), 6: (64, 32, 4, 4), 9: (32, 3, 4, 4)}.items():
        assert shapes.pop(f"decoder.layers.{number}.weight") == shape
    assert shapes.pop("decoder.layers.9.bias") == (3,)
    for number in (1, 4, 7):
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            shapes.pop(f"decoder.layers.{number}.{name}")
    assert {name.split(".")[0] for name in shapes} == {"discriminator"}
    assert len(shapes) == 6


@pytest.mark.parametrize("content", ["dcgan", "resnet18", "vgg16"])
@pytest.mark.parametrize("decoder", ["dcgan", "vgg16"])
@pytest.mark.parametrize("skips", [True, False])
def test_networks_fit_each_other_or_are_refused_in_one_line(content: Any, decoder: Any, skips: bool) -> None:
    settings: dict[str, Any] = {"content_network": content, "decoder_network": decoder, "pose_network": "resnet18"}
    if skips and content != decoder:
        with pytest.raises(ValueError, match="skips are not allowed from a content_network") as raised:
            DrNetConfig(**settings, skips=skips)
        assert "\n" not in str(raised.value)
        return
    torch.manual_seed(0)
    model = DrNet(DrNetConfig(**settings, skips=skips, size=64, width=2, channels=1))
    kinds = {"dcgan": DcganEncoder, "resnet18": ResNet18Encoder, "vgg16": Vgg16Encoder}
    assert type(model.content_encoder) is kinds[content]
    assert type(model.pose_encoder) is ResNet18Encoder
    assert type(model.decoder) is {"dcgan": DcganDecoder, "vgg16": Vgg16Decoder}[decoder]
    for _, loss, _ in model.losses(torch.rand(3, 2, 1, 64, 64), 0):
        loss.backward()
    missing = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert missing == set()


def test_a_model_with_skips_swaps_and_shows_the_content_frames_own_maps() -> None:
    torch.manual_seed(0)
    networks: dict[str, Any] = {"content_network": "vgg16", "decoder_network": "vgg16", "skips": True}
    model = DrNet(DrNetConfig(**networks, size=32, width=4, channels=1)).eval()
    content, pose = torch.rand(2, 1, 32, 32), torch.rand(3, 1, 32, 32)
    frames = swap(model, content, pose)
    assert frames.shape == (2, 3, 1, 32, 32)
    with torch.no_grad():
        alone = model.decode(model.content_encoder(content[1:]), model.pose_encoder(pose[2:]))
    assert torch.allclose(frames[1, 2], alone[0], atol=1e-6)


@pytest.mark.parametrize("size", [32, 64, 96, 128, 160, 192, 224, 256])
def test_every_network_takes_every_size(size: int) -> None:
    for networks in ({"content_network": "resnet18"}, {"content_network": "vgg16", "decoder_network": "vgg16"}):
        settings: dict[str, Any] = {"pose_network": "resnet18", "width": 2, **networks}
        with torch.device("meta"):
            model = DrNet(DrNetConfig(**settings, size=size, skips="decoder_network" in networks))
            frames = torch.empty(2, 3, size, size)
            content = model.content_encoder(frames)
            assert model.decode(content, model.encode(frames)[1]).shape == frames.shape


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 48}, "frame size 48 is not allowed; .* --size 64"),
        (
            {"content_network": "alexnet"},
            "content_network 'alexnet' is not allowed; supported are dcgan, resnet18, vgg16",
        ),
        ({"pose_network": "vgg16"}, "pose_network 'vgg16' is not allowed; supported are dcgan, resnet18"),
        ({"decoder_network": "resnet18"}, "decoder_network 'resnet18' is not allowed; supported are dcgan, vgg16"),
        ({"negatives": "none"}, "negatives 'none' is not allowed; supported are shift, other-content, permuted"),
        (
            {"reconstruction": "median"},
            r"reconstruction 'median' is not allowed \(did you mean 'mean'\?\); supported are mean, sum",
        ),
        ({"decoder_mixing": -1}, "decoder_mixing -1 is not allowed with decoder_network 'dcgan'; it is 0, or"),
        ({"decoder_mixing": 7}, "decoder_mixing 7 is not allowed with .* or with dcgan 8 units or more"),
        (
            {"decoder_mixing": 8, "decoder_network": "vgg16"},
            "decoder_mixing 8 is not allowed with decoder_network 'vgg16'",
        ),
        ({"content_pooled": True, "skips": True}, "content_pooled is not allowed with skips"),
        ({"content_pooled": True, "content_network": "vgg16"}, "content_pooled is not allowed with content_network"),
    ],
    ids=str,
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        DrNetConfig(**wrong)
    assert "\n" not in str(raised.value)
