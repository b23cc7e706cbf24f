"""VGG16 as content encoder and its mirror as decoder: shapes, parameters by hand, skips."""

import pytest
import torch
from torch import nn

from drnet.networks import Content
from drnet.vgg import Vgg16Decoder, Vgg16Encoder

# (before, after) of the 13 convolutions of configuration D of [27], by stage
STAGES = [
    [(3, 64), (64, 64)],
    [(64, 128), (128, 128)],
    [(128, 256), (256, 256), (256, 256)],
    [(256, 512), (512, 512), (512, 512)],
    [(512, 512), (512, 512), (512, 512)],
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def by_hand(layers: list[tuple[int, int]]) -> int:
    """3x3 kernels without bias, and two numbers of BatchNorm for each channel."""
    return sum(9 * before * after + 2 * after for before, after in layers)


@pytest.mark.parametrize(("size", "last"), [(32, 1), (64, 2), (96, 3), (128, 4), (256, 8)])
def test_parameters_of_the_encoder_are_those_counted_by_hand(size: int, last: int) -> None:
    with torch.device("meta"):
        encoder = Vgg16Encoder(3, size, 64, 128)
        assert encoder(torch.empty(2, 3, size, size)).shape == (2, 128)
    layers = [layer for stage in STAGES for layer in stage]
    assert len(layers) == 13
    assert sum(9 * before * after for before, after in layers) == 14_710_464  # VGG16's own, without biases and classes
    assert count(encoder) == by_hand(layers) + (last * last * 512 * 128 + 128)


@pytest.mark.parametrize("skips", [True, False])
def test_parameters_of_the_decoder_are_those_counted_by_hand(skips: bool) -> None:
    with torch.device("meta"):
        decoder = Vgg16Decoder(3, 128, 64, 133, skips=skips)
    mirrored = [(after, before) for stage in STAGES for before, after in stage][::-1]
    assert mirrored.pop() == (64, 3)
    beside = [512, 512, 256, 128, 64] if skips else []  # channels that join at the head of each stage
    joined = sum(9 * channels * after for channels, after in zip(beside, (512, 512, 256, 128, 64), strict=False))
    first = 16 * 133 * 512 + 2 * 512
    last = 9 * 64 * 3 + 3
    assert count(decoder) == first + by_hand(mirrored) + joined + last


def test_skips_are_the_maps_before_each_pooling() -> None:
    with torch.device("meta"):
        content = Vgg16Encoder(1, 128, 64, 128, skips=True)(torch.empty(1, 1, 128, 128))
        shapes = [tuple(skip.shape[1:]) for skip in content.skips]
        assert shapes == [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (512, 8, 8)]
        decoder = Vgg16Decoder(1, 128, 64, 133, skips=True)
        assert decoder(content, torch.empty(1, 5)).shape == (1, 1, 128, 128)


def test_there_is_pooling_in_the_encoder_and_nearest_upsampling_in_the_decoder() -> None:
    torch.manual_seed(0)
    encoder, decoder = Vgg16Encoder(1, 32, 4, 6).eval(), Vgg16Decoder(1, 32, 4, 9).eval()
    seen: list[torch.Tensor] = []
    for stage in (encoder.stages[1], decoder.stages[0]):
        stage.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    frames = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        first = encoder.stages[0](frames)
        vector = encoder(frames)
        pose = torch.rand(2, 3)
        decoder(vector, pose)
        lowest = decoder.first(torch.cat([vector, pose], 1)[:, :, None, None])
    assert torch.equal(seen[0], first.reshape(2, 4, 16, 2, 16, 2).amax((3, 5)))
    assert torch.equal(seen[1], lowest.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("size", [32, 64, 96, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_frame_goes_in_and_comes_out_at_its_size(size: int, channels: int) -> None:
    torch.manual_seed(0)
    encoder, decoder = Vgg16Encoder(channels, size, 2, 6, skips=True), Vgg16Decoder(channels, size, 2, 9, skips=True)
    frames = torch.rand(2, channels, size, size)
    content = encoder(frames)
    drawn = decoder(content, torch.rand(2, 3)).detach()
    assert torch.allclose(content.vector.norm(dim=1), torch.ones(2), atol=1e-6)
    assert drawn.shape == frames.shape
    assert 0 < float(drawn.min()) <= float(drawn.max()) < 1


def test_each_skip_reaches_the_drawing_and_the_encoder_learns_through_it() -> None:
    torch.manual_seed(0)
    encoder, decoder = Vgg16Encoder(1, 64, 4, 6, skips=True), Vgg16Decoder(1, 64, 4, 9, skips=True)
    pose = torch.rand(2, 3)
    content = encoder(torch.rand(2, 1, 64, 64))
    for skip in content.skips:
        skip.retain_grad()
    drawn = decoder(Content(content.vector.detach(), content.skips), pose)
    (drawn - 0.5).square().mean().backward()
    assert all(bool(skip.grad.any()) for skip in content.skips)
    assert bool(encoder.stages[0][0].weight.grad.any())
    with pytest.raises(ValueError, match="a content with 0 skips is not allowed; this decoder takes 5"):
        decoder(content.vector, pose)


def test_in_bfloat16_vectors_and_frames_stay_float32() -> None:
    encoder, decoder = Vgg16Encoder(1, 32, 4, 6, skips=True), Vgg16Decoder(1, 32, 4, 9, skips=True)
    with torch.autocast("cpu", torch.bfloat16):
        content = encoder(torch.rand(2, 1, 32, 32))
        drawn = decoder(content, torch.rand(2, 3))
    assert content.vector.dtype == drawn.dtype == torch.float32


def test_another_size_is_refused_in_one_line() -> None:
    for make in (Vgg16Encoder, Vgg16Decoder):
        with pytest.raises(ValueError, match=r"frame size 100 is not allowed; .*--size 96$"):
            make(3, 100, 4, 5)
