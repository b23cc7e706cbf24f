"""The table of presets: the paper's settings under its names, and every row usable."""

import dataclasses

import pytest
import torch

from drnet.kinds import KINDS, kind_of
from drnet.model import DrNet
from drnet.presets import PAPER, PRESETS, preset

# Sec. 4.1: content encoder, pose encoder, decoder, skips, numbers of the pose, beta; and the frames of Sec. 4 and C.
OF_THE_PAPER = {
    "mnist": ("dcgan", "dcgan", "dcgan", False, 5, 0.1, (64,)),
    "norb": ("resnet18", "resnet18", "dcgan", False, 10, 0.1, (64, 96)),
    "chairs": ("resnet18", "resnet18", "dcgan", False, 10, 0.1, (64,)),
    "kth": ("vgg16", "resnet18", "vgg16", True, 5, 0.0001, (128,)),
    "kth-actions": ("vgg16", "resnet18", "vgg16", True, 24, 0.0001, (128,)),
}


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_the_papers_rows_are_the_papers_settings(name: str) -> None:
    chosen = preset(name)
    model = chosen.model
    networks = (model.content_network, model.pose_network, model.decoder_network, model.skips)
    assert (*networks, model.pose_dim, model.beta, chosen.sizes) == OF_THE_PAPER[name]
    assert (model.content_dim, model.alpha, model.width, model.unit_norm) == (128, 1.0, 64, True)
    assert (chosen.train.lr, chosen.train.schedule) == (0.002, "constant")
    assert (model.centred, model.content_pooled, model.alpha_warmup, model.beta_warmup) == ("none", False, 0, 0)
    assert model.size in chosen.sizes
    assert list(OF_THE_PAPER) == list(PAPER)


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_the_papers_model_draws_frames_at_its_full_size(name: str) -> None:
    chosen = preset(name)
    torch.manual_seed(0)
    model = DrNet(chosen.model).eval()
    frames = torch.rand(1, chosen.model.channels, chosen.model.size, chosen.model.size)
    with torch.no_grad():
        content, pose = model.encode(frames)
        drawn = model.decode(model.content_encoder(frames), pose)
    assert drawn.shape == frames.shape
    assert bool(drawn.isfinite().all())
    for vectors in (content, pose):
        assert vectors.norm().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("norb", "93.3"),
        ("norb", "60.9"),
        ("norb", "72.6"),
        ("norb", "80.8"),
        ("kth", "19.6"),
        ("kth", "20.3"),
        ("kth-actions", "93.9"),
        ("mnist", "Fig. 3"),
        ("chairs", "Fig. 5"),
    ],
)
def test_a_row_ends_with_what_it_must_reproduce(name: str, said: str) -> None:
    assert said in preset(name).reproduces


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_a_model_for_each_of_its_sizes(name: str) -> None:
    chosen = preset(name)
    assert chosen.sizes
    for size in chosen.sizes:
        with torch.device("meta"):
            model = KINDS[kind_of(chosen.model)].model(dataclasses.replace(chosen.model, size=size))
            frames = torch.empty(2, chosen.model.channels, size, size)
            content, pose = model.encode(frames)
            assert model.decode(model.content_encoder(frames), pose).shape == frames.shape
        assert content.shape == (2, chosen.model.content_dim)
        assert pose.shape == (2, chosen.model.pose_dim)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_in_one_line_what_it_is_and_what_it_must_reproduce(name: str) -> None:
    chosen = preset(name)
    for text in (chosen.title, chosen.reproduces):
        assert text
        assert "\n" not in text


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_schedules_end_before_its_horizon(name: str) -> None:
    chosen = preset(name)
    assert chosen.train.warmup < chosen.train.horizon
    for name in ("alpha_warmup", "beta_warmup"):
        assert getattr(chosen.model, name, 0) <= chosen.train.horizon


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"preset 'mnits' is not known \(did you mean 'mnist'\?\); there are mnist, "
    ) as raised:
        preset("mnits")
    assert all(name in str(raised.value) for name in PRESETS)
    assert "\n" not in str(raised.value)
