"""LPIPS: the numbers of torchmetrics' own implementation, with any backbone's weights."""

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as reference

from drnet.lpips import Backbone, Lpips
from drnet.pipelines.evaluation.perceptual import linear_weights

ENDS = {"alex": 12, "vgg": 30}  # layers of torchvision's features up to the last ReLU


def with_random_weights(backbone: Backbone) -> Lpips:
    torch.manual_seed(0)
    network = Lpips(backbone)
    state = network.state_dict() | linear_weights(backbone)
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
@pytest.mark.parametrize("side", [32, 64])
def test_distances_are_those_of_torchmetrics(backbone: Backbone, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = with_random_weights(backbone)
    assert len(network.features) == ENDS[backbone]

    def features(net: str, pretrained: bool) -> nn.Sequential:
        assert pretrained
        assert net == {"alex": "alexnet", "vgg": "vgg16"}[backbone]
        return network.features

    monkeypatch.setattr(reference, "_get_tv_model_features", features)
    wanted = reference._LPIPS(net=backbone)
    first, second = torch.rand(2, 3, 3, side, side)
    with torch.no_grad():
        found = network(first, second)
        torch.testing.assert_close(found, wanted(first, second, normalize=True).flatten(), rtol=1e-4, atol=1e-7)
    assert found.shape == (3,)
    assert (found > 0).all()


def test_the_same_pictures_are_at_no_distance_and_grey_is_colour_three_times() -> None:
    network = with_random_weights("alex")
    grey, other = torch.rand(2, 2, 1, 40, 40)
    with torch.no_grad():
        assert network(grey, grey).tolist() == [0, 0]
        torch.testing.assert_close(network(grey, other), network(grey.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1)))
