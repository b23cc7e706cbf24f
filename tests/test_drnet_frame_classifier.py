"""The small classifier: shapes, and that it learns what is there."""

import pytest
import torch

from drnet.frame_classifier import FrameClassifier
from drnet.trainer import TrainConfig, Trainer


@pytest.mark.parametrize(("channels", "side"), [(1, 4), (1, 8), (3, 14), (1, 16), (10, 32), (3, 48)])
def test_frames_of_any_side_from_4_give_a_logit_for_each_class(channels: int, side: int) -> None:
    net = FrameClassifier(channels, side, 6, width=4).eval()
    frames = torch.rand(5, channels, side, side)
    assert net(frames).shape == (5, 6)
    chances = net.probabilities(frames)
    assert torch.allclose(chances.sum(1), torch.ones(5))
    assert not chances.requires_grad


def test_maps_are_halved_to_4x4_and_widen_up_to_four_times() -> None:
    net = FrameClassifier(1, 64, 6, width=4)
    widths = [layer.out_channels for layer in net.features if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [4, 8, 16, 16]
    assert net.features[:-2](torch.rand(2, 1, 64, 64)).shape == (2, 16, 4, 4)


def test_frames_below_4x4_are_refused() -> None:
    with pytest.raises(ValueError, match="3x3"):
        FrameClassifier(1, 3, 6)


def test_the_trainer_teaches_it_a_class_that_frames_show() -> None:
    torch.manual_seed(0)
    net = FrameClassifier(1, 8, 2, width=4)
    trainer = Trainer(net, TrainConfig(batch_size=32, lr=0.01), torch.device("cpu"))
    for _ in range(40):
        classes = torch.randint(2, (32,))
        trainer.train_step(torch.rand(32, 1, 8, 8) * 0.2 + 0.5 * classes[:, None, None, None], classes)
    found = trainer.take_metrics()
    assert {"loss", "accuracy"} <= set(found)
    net.eval()
    bright = net.probabilities(torch.full((1, 1, 8, 8), 0.6))[0]
    dark = net.probabilities(torch.full((1, 1, 8, 8), 0.1))[0]
    assert bright[1] > 0.9
    assert dark[0] > 0.9
