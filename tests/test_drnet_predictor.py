"""The predictor: shapes, what a step sees, scheduled sampling, and that it learns to continue a motion."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from drnet.predictor import PosePredictor, PredictorConfig

SMALL = {"pose_dim": 3, "content_dim": 4, "hidden": 16, "observe": 3, "predict": 5}


def predictor(seed: int = 0, **changes: object) -> PosePredictor:
    torch.manual_seed(seed)
    return PosePredictor(PredictorConfig(**(SMALL | changes)))  # type: ignore[arg-type]


def windows(batch: int = 4, time: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return poses of norm 1 and content vectors."""
    draw = torch.Generator().manual_seed(seed)
    poses = F.normalize(torch.randn(batch, time, 3, generator=draw), dim=2)
    return poses, torch.randn(batch, 4, generator=draw)


def loss_of(model: PosePredictor, step: int = 0, share: float = 0.5) -> Tensor:
    poses, content = windows()
    (name, loss, _), *more = model.losses(poses, step, content, torch.full((4, 8), share))
    assert (name, more) == ("predictor", [])
    return loss


def test_the_paper_has_two_layers_of_256_cells_and_sees_five_frames_to_predict_ten() -> None:
    config = PredictorConfig()
    assert (config.layers, config.hidden, config.observe, config.predict, config.window) == (2, 256, 5, 10, 15)
    model = PosePredictor(config)
    lstm = 2 * 4 * (256 * 256 + 256 * 256 + 2 * 256)
    embedding, last = (5 + 128) * 256 + 256, 256 * 5 + 5
    assert sum(p.numel() for p in model.parameters()) == lstm + embedding + last


@pytest.mark.parametrize(
    ("output", "residual"), list(itertools.product(("unit", "tanh", "linear"), (False, True))), ids=str
)
def test_predictions_have_the_shape_and_the_range_of_poses(output: str, residual: bool) -> None:
    model = predictor(output=output, residual=residual)
    poses, content = windows()
    found, _ = model(content, poses)
    assert found.shape == poses.shape
    if output == "unit":
        assert torch.allclose(found.norm(dim=2), torch.ones(4, 8))
    if output == "tanh":
        assert bool((found.abs() <= 1).all())


def test_a_prediction_depends_on_nothing_that_comes_after_it() -> None:
    model = predictor()
    poses, content = windows()
    later = poses.clone()
    later[:, 5:] = -later[:, 5:]
    one, other = model(content, poses)[0], model(content, later)[0]
    assert torch.equal(one[:, :5], other[:, :5])
    assert not torch.allclose(one[:, 5:], other[:, 5:])


def test_a_prediction_depends_on_the_content() -> None:
    model = predictor()
    poses, content = windows()
    assert not torch.allclose(model(content, poses)[0], model(content + 1, poses)[0])


def test_a_rollout_feeds_each_prediction_back_step_by_step() -> None:
    model = predictor().eval()
    poses, content = windows()
    found = list(model.rollout(content, poses[:, :3], 4))
    seen = poses[:, :3]
    for expected in found:  # the whole past again for every step: the long way round
        assert torch.allclose(model(content, seen)[0][:, -1], expected, atol=1e-6)
        seen = torch.cat([seen, expected[:, None]], 1)
    assert not any(pose.requires_grad for pose in found)


def test_a_rollout_leaves_gradients_on_for_the_caller() -> None:
    poses, content = windows()
    for _ in predictor().rollout(content, poses, 2):
        assert torch.is_grad_enabled()


def test_teacher_forcing_sees_the_true_poses_whatever_is_drawn() -> None:
    model = predictor(sampling=1.0, sampling_steps=100)
    assert torch.equal(loss_of(model, 0, share=0.0), loss_of(predictor(), 0, share=0.9))


def test_with_sampling_one_the_loss_is_that_of_the_rollout_itself() -> None:
    model = predictor(sampling=1.0, loss_on="predicted")
    poses, content = windows()
    rolled = torch.stack(list(model.rollout(content, poses[:, :3], 5)), 1)
    expected = (rolled - poses[:, 3:]).square().sum(2).mean()
    assert torch.allclose(loss_of(model, 0, share=0.999), expected, atol=1e-6)


def test_a_draw_above_the_share_sees_the_truth() -> None:
    model = predictor(sampling=0.5)
    assert torch.allclose(loss_of(model, 0, share=0.6), loss_of(predictor(), 0), atol=1e-6)
    assert not torch.allclose(loss_of(model, 0, share=0.4), loss_of(predictor(), 0), atol=1e-6)


def test_the_share_of_sampled_steps_grows_linearly_and_then_stays() -> None:
    config = PredictorConfig(sampling=0.8, sampling_steps=10)
    assert [config.sampling_at(step) for step in (0, 5, 10, 99)] == [0, 0.4, 0.8, 0.8]
    assert PredictorConfig(sampling=0.8).sampling_at(0) == 0.8


def test_the_loss_is_of_all_steps_or_of_the_predicted_ones() -> None:
    poses, content = windows()
    for which, first in (("all", 0), ("predicted", 2)):
        model = predictor(loss_on=which)
        squared = (model(content, poses[:, :-1])[0] - poses[:, 1:]).square().sum(2)
        assert torch.allclose(loss_of(model), squared[:, first:].mean())


def test_the_metrics_hold_the_error_of_copying_the_last_pose() -> None:
    poses, content = windows()
    _, _, metrics = next(predictor().losses(poses, 0, content, torch.zeros(4, 8)))
    copied = (poses[:, 3:] - poses[:, 2:-1]).square().sum(2).mean()
    assert torch.allclose(metrics["baseline/copy"], copied)


def test_measuring_makes_the_predictor_blind_to_where_poses_lie_and_how_far_they_vary() -> None:
    poses, content = windows()
    plain, moved = predictor(output="linear"), predictor(output="linear")
    plain.measure(poses.reshape(-1, 3))
    far = poses * 0.01 + 5
    moved.measure(far.reshape(-1, 3))
    assert torch.allclose(plain(content, poses)[0] * 0.01 + 5, moved(content, far)[0], atol=1e-5)
    one, other = (
        next(model.losses(p, 0, content, torch.zeros(4, 8)))[1] for model, p in ((plain, poses), (moved, far))
    )
    assert torch.allclose(one, other, rtol=1e-3)


def test_constant_poses_are_measured_without_dividing_by_nothing() -> None:
    model = predictor()
    model.measure(torch.ones(5, 3))
    assert float(model.scale) == 1


def test_it_learns_to_continue_turns_of_different_speed() -> None:
    model = predictor(content_dim=1, hidden=32, residual=True, observe=3, predict=7)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    draw = torch.Generator().manual_seed(2)
    content = torch.zeros(32, 1)

    def turns() -> Tensor:
        start, speed = torch.rand(2, 32, 1, generator=draw) * torch.tensor([2 * math.pi, 0.8])[:, None, None]
        angle = start + speed * torch.arange(10)
        return torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], 2)

    for step in range(180):
        _, loss, _ = next(model.losses(turns(), step, content, torch.zeros(32, 10)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out = turns()
    rolled = torch.stack(list(model.eval().rollout(content, held_out[:, :3], 7)), 1)
    error = (rolled - held_out[:, 3:]).square().sum(2).mean()
    copied = (held_out[:, 2:3] - held_out[:, 3:]).square().sum(2).mean()
    assert error < 0.1 * copied


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observe": 0}, "observe 0 is not allowed; it must be at least 1"),
        ({"predict": 0}, "predict 0 is not allowed"),
        ({"hidden": 0}, "hidden 0 is not allowed"),
        ({"sampling": 1.5}, "sampling 1.5 is not allowed; it is a share from 0 to 1"),
        ({"output": "relu"}, "output 'relu' is not allowed; supported are unit, tanh, linear"),
        ({"loss_on": "none"}, "loss_on 'none' is not allowed; supported are all, predicted"),
    ],
)
def test_settings_that_are_not_allowed_are_told(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(**changes)
