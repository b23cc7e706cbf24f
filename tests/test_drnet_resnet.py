"""ResNet-18 as encoder: shapes, parameters by hand, its blocks, and the paper's last layer."""

import pytest
import torch
from torch import nn

from drnet.networks import initialise_he
from drnet.resnet import Block, ResNet18Encoder


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def block(before: int, after: int) -> int:
    """Parameters of a basic block by hand: two 3x3 convolutions, two BatchNorms, and a projection where it widens."""
    projection = before * after + 2 * after if before != after else 0
    return 9 * before * after + 9 * after * after + 4 * after + projection


TRUNK = (
    49 * 3 * 64
    + 2 * 64
    + sum(block(before, after) + block(after, after) for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)))
)


@pytest.mark.parametrize(("size", "last"), [(32, 1), (64, 2), (96, 3), (128, 4), (256, 8)])
@pytest.mark.parametrize("dim", [10, 128])
def test_parameters_are_those_counted_by_hand(size: int, last: int, dim: int) -> None:
    with torch.device("meta"):
        encoder = ResNet18Encoder(3, size, 64, dim)
        assert encoder(torch.empty(2, 3, size, size)).shape == (2, dim)
        assert encoder.features(torch.empty(2, 3, size, size)).shape == (2, 512, last, last)
    assert TRUNK == 11_176_512  # ResNet-18 of [8] without its 513,000 for the 1000 classes
    assert count(encoder) == TRUNK + (last * last * 512 * dim + dim)


def test_it_has_the_17_convolutions_of_the_source_beside_projections_and_the_last() -> None:
    with torch.device("meta"):
        encoder = ResNet18Encoder(1, 64, 64, 10)
    convolutions = [part for part in encoder.features.modules() if isinstance(part, nn.Conv2d)]
    assert sum(part.kernel_size != (1, 1) for part in convolutions) == 17
    assert sum(part.kernel_size == (1, 1) for part in convolutions) == 3
    assert count(encoder) == TRUNK - 49 * 2 * 64 + (4 * 512 * 10 + 10)  # grey frames


@pytest.mark.parametrize(("size", "stages"), [(64, 4), (96, 4), (128, 5), (160, 5)])
def test_a_fifth_stage_of_1024_channels_exists_from_128_on(size: int, stages: int) -> None:
    with torch.device("meta"):
        encoder = ResNet18Encoder(3, size, 64, 10, fifth_stage=True)
        assert encoder(torch.empty(2, 3, size, size)).shape == (2, 10)
    blocks = [part for part in encoder.features if isinstance(part, Block)]
    assert len(blocks) == 2 * stages
    if size == 128:
        fifth = block(512, 1024) + block(1024, 1024)
        assert count(encoder) == TRUNK + fifth + (4 * 1024 * 10 + 10)


def test_a_block_adds_its_input_to_what_its_convolutions_say() -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 4, 8, 8)
    same = Block(4, 4, 1).eval()
    nn.init.zeros_(same.residual[4].weight)
    assert torch.equal(same(maps), maps)
    wider = Block(4, 6, 2).eval()
    nn.init.zeros_(wider.residual[4].weight)
    assert torch.allclose(wider(maps), torch.relu(wider.shortcut(maps)))
    assert wider(maps).shape == (2, 6, 4, 4)


@pytest.mark.parametrize("size", [64, 96, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_vectors_have_norm_1_for_grey_and_coloured_frames(size: int, channels: int) -> None:
    torch.manual_seed(0)
    encoder = ResNet18Encoder(channels, size, 4, 7)
    vectors = encoder(torch.rand(3, channels, size, size))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-6)
    vectors.sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in encoder.parameters() if parameter.grad is not None)


def test_without_unit_norm_batchnorm_and_tanh_follow() -> None:
    encoder = ResNet18Encoder(3, 32, 4, 7, unit_norm=False)
    vectors = encoder(torch.rand(64, 3, 32, 32)).detach()
    assert float(vectors.abs().max()) < 1
    assert torch.allclose(torch.atanh(vectors).mean(0), torch.zeros(7), atol=1e-4)


def test_a_vector_tells_where_things_are() -> None:
    torch.manual_seed(0)
    encoder = ResNet18Encoder(1, 64, 8, 6)
    square = torch.zeros(1, 1, 64, 64)
    square[..., 8:24, 8:24] = 1
    frames = torch.cat([square.roll((y, x), (2, 3)) for y in (0, 32) for x in (0, 32)])
    with torch.no_grad():
        vectors = encoder(frames)
    assert float(torch.pdist(vectors).min()) > 0.05


def test_its_own_weights_have_the_spread_of_their_fan_out() -> None:
    torch.manual_seed(0)
    encoder = ResNet18Encoder(3, 64, 32, 5)
    initialise_he(encoder.features)
    for part in encoder.features.modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 2000:
            fan_out = part.out_channels * part.kernel_size[0] ** 2
            assert float(part.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        elif isinstance(part, nn.BatchNorm2d):
            assert bool((part.weight == 1).all())


def test_another_size_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"frame size 48 is not allowed; .*--size 64$"):
        ResNet18Encoder(3, 48, 4, 5)
