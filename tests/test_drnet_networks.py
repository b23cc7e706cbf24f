"""The DCGAN networks: shapes, sizes by hand, and the paper's last layers."""

import pytest
import torch
from torch import nn

from drnet.model import DrNet, DrNetConfig
from drnet.networks import SIZES, Content, DcganDecoder, DcganEncoder, SceneDiscriminator, check_size, initialise_dcgan


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("size", [32, 64, 96, 128, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_frame_becomes_a_vector_and_vectors_become_a_frame(size: int, channels: int) -> None:
    frames = torch.rand(3, channels, size, size)
    content = DcganEncoder(channels, size, 4, 12)(frames)
    pose = DcganEncoder(channels, size, 4, 5)(frames)
    assert content.shape == (3, 12)
    assert pose.shape == (3, 5)
    drawn = DcganDecoder(channels, size, 4, 17)(content, pose).detach()
    assert drawn.shape == frames.shape
    assert drawn.dtype == torch.float32
    assert 0 < float(drawn.min()) <= float(drawn.max()) < 1


@pytest.mark.parametrize(("size", "convolutions"), [(32, 4), (64, 5), (96, 5), (128, 6), (160, 6), (256, 7)])
def test_an_encoder_has_five_convolutions_at_64(size: int, convolutions: int) -> None:
    layers = [part for part in DcganEncoder(3, size, 4, 5).modules() if isinstance(part, nn.Conv2d)]
    assert len(layers) == convolutions
    layers = [part for part in DcganDecoder(3, size, 4, 5).modules() if isinstance(part, nn.ConvTranspose2d)]
    assert len(layers) == convolutions


def test_parameters_at_64_are_those_counted_by_hand() -> None:
    with torch.device("meta"):
        encoder, decoder = DcganEncoder(3, 64, 64, 128), DcganDecoder(3, 64, 64, 133)
        discriminator = SceneDiscriminator(5)
    inner = 16 * (64 * 128 + 128 * 256 + 256 * 512)  # 4x4 kernels without bias between the outermost layers
    norms = 2 * (64 + 128 + 256 + 512)
    assert count(encoder) == 16 * 3 * 64 + inner + norms + (16 * 512 * 128 + 128)
    assert count(decoder) == 16 * 133 * 512 + inner + norms + (16 * 64 * 3 + 3)
    assert count(discriminator) == (10 * 100 + 100) + (100 * 100 + 100) + (100 + 1)
    assert count(encoder) == 3_806_208


def test_channels_stop_growing_at_eight_times_the_first() -> None:
    with torch.device("meta"):
        last = DcganEncoder(3, 256, 64, 5).last
    assert last.weight.shape == (5, 512, 4, 4)


def test_vectors_have_norm_1() -> None:
    encoder = DcganEncoder(3, 32, 4, 7)
    for frames in (torch.rand(6, 3, 32, 32), torch.zeros(6, 3, 32, 32)):
        assert torch.allclose(encoder(frames).norm(dim=1), torch.ones(6), atol=1e-6)


def test_without_unit_norm_vectors_are_bounded_by_tanh() -> None:
    encoder = DcganEncoder(3, 32, 4, 7, unit_norm=False)
    vectors = encoder(torch.rand(64, 3, 32, 32)).detach()
    assert float(vectors.abs().max()) < 1
    assert float((vectors.norm(dim=1) - 1).abs().max()) > 0.1
    assert torch.allclose(torch.atanh(vectors).mean(0), torch.zeros(7), atol=1e-4)  # BatchNorm before it


def test_the_discriminator_sees_both_poses_in_order() -> None:
    torch.manual_seed(0)
    discriminator = SceneDiscriminator(5)
    first, second = torch.randn(4, 5), torch.randn(4, 5)
    logits = discriminator(first, second)
    assert logits.shape == (4,)
    hidden = torch.cat([first, second], 1)
    for layer in (discriminator.layers[0], discriminator.layers[2]):
        hidden = torch.relu(hidden @ layer.weight.T + layer.bias)
    assert torch.allclose(logits, (hidden @ discriminator.layers[4].weight.T + discriminator.layers[4].bias)[:, 0])
    assert not torch.allclose(logits, discriminator(second, first))


def test_in_bfloat16_vectors_frames_and_logits_stay_float32() -> None:
    encoder, decoder, discriminator = DcganEncoder(3, 32, 4, 5), DcganDecoder(3, 32, 4, 10), SceneDiscriminator(5)
    with torch.autocast("cpu", torch.bfloat16):
        vector = encoder(torch.rand(4, 3, 32, 32))
        results = vector, decoder(vector, vector), discriminator(vector, vector)
    assert [result.dtype for result in results] == [torch.float32] * 3


def test_the_authors_initialisation_has_their_spreads() -> None:
    torch.manual_seed(0)
    encoder = DcganEncoder(3, 64, 16, 5)
    initialise_dcgan(encoder)
    encoder.requires_grad_(False)
    convolution, norm = encoder.features[3], encoder.features[10]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert float(convolution.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(norm.weight.mean()) == pytest.approx(1, abs=0.01)
    assert float(norm.weight.std()) == pytest.approx(0.02, rel=0.3)
    assert not encoder.last.bias.any()


@pytest.mark.parametrize(
    ("size", "last"), [(32, 4), (64, 4), (96, 6), (128, 4), (160, 5), (192, 6), (224, 7), (256, 4)]
)
def test_the_last_convolution_covers_its_whole_map_at_every_size(size: int, last: int) -> None:
    with torch.device("meta"):
        encoder = DcganEncoder(3, size, 4, 5)
        assert encoder.features(torch.empty(1, 3, size, size)).shape[2:] == (last, last)
        assert encoder.last.kernel_size == (last, last)
        assert encoder(torch.empty(1, 3, size, size)).shape == (1, 5)
        assert DcganDecoder(3, size, 4, 10)(torch.empty(2, 5), torch.empty(2, 5)).shape == (2, 3, size, size)


@pytest.mark.parametrize(("size", "nearest"), [(0, 32), (16, 32), (48, 64), (100, 96), (250, 256), (512, 256)])
def test_another_size_is_refused_in_one_line_with_the_nearest_allowed(size: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=f"frame size {size} is not allowed") as raised:
        DcganEncoder(3, size, 4, 5)
    assert str(raised.value).endswith(f"multiples of 32 from 32 to 256: build the data set with --size {nearest}")
    assert "\n" not in str(raised.value)
    assert [check_size(size) for size in SIZES] == [32, 64, 96, 128, 160, 192, 224, 256]


def test_skips_of_a_dcgan_are_its_maps_and_double_what_the_decoder_reads() -> None:
    with torch.device("meta"):
        encoder, decoder = DcganEncoder(3, 64, 64, 128, skips=True), DcganDecoder(3, 64, 64, 133, skips=True)
        plain = DcganDecoder(3, 64, 64, 133)
        content = encoder(torch.empty(2, 3, 64, 64))
    assert content.vector.shape == (2, 128)
    assert [tuple(skip.shape[1:]) for skip in content.skips] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    more = 16 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)  # each later 4x4 kernel reads as many channels again
    assert count(decoder) == count(plain) + more


def test_a_decoder_uses_every_skip_and_those_of_its_own_frame() -> None:
    torch.manual_seed(0)
    encoder, decoder = DcganEncoder(3, 32, 4, 6, skips=True).eval(), DcganDecoder(3, 32, 4, 9, skips=True).eval()
    frames, pose = torch.rand(2, 3, 32, 32), torch.rand(2, 3)
    content = encoder(frames)
    drawn = decoder(content, pose)
    for number in range(len(content.skips)):
        skips = [torch.zeros_like(skip) if n == number else skip for n, skip in enumerate(content.skips)]
        assert not torch.allclose(decoder(Content(content.vector, tuple(skips)), pose), drawn)
    swapped = decoder(encoder(frames.flip(0)), pose.flip(0))
    assert torch.allclose(swapped.flip(0), drawn, atol=1e-6)
    assert torch.allclose(content.vector.norm(dim=1), torch.ones(2), atol=1e-6)


def test_contents_with_skips_are_chosen_and_repeated_like_vectors() -> None:
    content = Content(torch.arange(6.0).reshape(3, 2), (torch.arange(12.0).reshape(3, 1, 2, 2),))
    assert len(content) == 3
    assert torch.equal(content[1:].skips[0], content.skips[0][1:])
    repeated = content.repeat_interleave(2)
    assert repeated.vector[:, 0].tolist() == [0, 0, 2, 2, 4, 4]
    assert repeated.skips[0][:, 0, 0, 0].tolist() == [0, 0, 4, 4, 8, 8]
    with pytest.raises(ValueError, match="dim 1 is not allowed"):
        content.repeat_interleave(2, 1)


def test_a_content_without_the_skips_that_a_decoder_takes_is_refused() -> None:
    decoder, plain = DcganDecoder(3, 32, 4, 9, skips=True), DcganDecoder(3, 32, 4, 9)
    with pytest.raises(ValueError, match="a content with 0 skips is not allowed; this decoder takes 3"):
        decoder(torch.rand(2, 6), torch.rand(2, 3))
    with pytest.raises(ValueError, match="a content with 1 skips is not allowed; this decoder takes 0"):
        plain(Content(torch.rand(2, 6), (torch.rand(2, 4, 16, 16),)), torch.rand(2, 3))


def test_a_pooled_encoder_does_not_see_a_shift_by_whole_strides() -> None:
    torch.manual_seed(0)
    frames = torch.rand(3, 3, 32, 32)
    pooled = DcganEncoder(3, 32, 4, 6, pooled=True).eval()
    plain = DcganEncoder(3, 32, 4, 6).eval()
    shifted = frames.roll((8, 16), (2, 3))  # three convolutions of stride 2
    with torch.no_grad():
        torch.testing.assert_close(pooled(shifted), pooled(frames))
        assert (plain(shifted) - plain(frames)).abs().max() > 1e-3


def test_a_centred_encoders_batch_has_no_common_direction() -> None:
    torch.manual_seed(0)
    frames = torch.rand(64, 3, 32, 32)
    centred, plain = DcganEncoder(3, 32, 4, 6, centred=True), DcganEncoder(3, 32, 4, 6)
    with torch.no_grad():
        assert centred(frames).mean(0).norm() < 0.2 < 0.5 < plain(frames).mean(0).norm()


@pytest.mark.parametrize("skips", [False, True])
def test_a_decoder_that_mixes_has_two_layers_more_and_draws_frames_of_the_same_shape(skips: bool) -> None:
    encoder = DcganEncoder(3, 32, 4, 6, skips=skips).eval()
    decoder, plain = (DcganDecoder(3, 32, 4, 9, skips=skips, mixing=units).eval() for units in (12, 0))
    shapes = {name: tuple(value.shape) for name, value in decoder.named_parameters() if name.startswith("mixing")}
    assert shapes["mixing.0.weight"] == (12, 9, 1, 1)
    assert shapes["mixing.3.weight"] == (12, 12, 1, 1)
    assert not any(name.startswith("mixing") for name in plain.state_dict())  # weights of earlier versions fit
    frames, pose = torch.rand(2, 3, 32, 32), torch.randn(2, 3)
    with torch.no_grad():
        assert decoder(encoder(frames), pose).shape == plain(encoder(frames), pose).shape == (2, 3, 32, 32)
        assert not torch.equal(decoder(encoder(frames), pose), decoder(encoder(frames), -pose))


def test_a_model_is_made_as_its_settings_say() -> None:
    model = DrNet(DrNetConfig(size=32, width=4, content_dim=6, pose_dim=3, decoder_mixing=12))
    assert len(model.decoder.mixing) == 6
    assert not len(DrNet(DrNetConfig(size=32, width=4, content_dim=6, pose_dim=3)).decoder.mixing)
