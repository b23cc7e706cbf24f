"""The training step: who is updated when, the schedules, and a state that continues bit for bit."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drnet.model import DrNet, DrNetConfig
from drnet.trainer import NotFinite, TrainConfig, Trainer

CPU = torch.device("cpu")


def drnet(**settings: Any) -> DrNet:
    torch.manual_seed(0)
    return DrNet(DrNetConfig(**({"size": 32, "width": 4, "content_dim": 6, "pose_dim": 3} | settings)))


def batch(step: int) -> Tensor:
    return torch.rand(4, 2, 3, 32, 32, generator=torch.Generator().manual_seed(step))


class TwoParts(nn.Module):
    """Two numbers; the second loss remembers the first number as it was when the loss was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"one": [self.first], "two": [self.second]}

    def losses(self, frames: Tensor, step: int) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        yield "one", (self.first - 1).square().sum(), {"one": self.first.detach().clone()}
        self.seen.append(self.first.item())
        rare = {"rare": torch.tensor(8.0)} if step >= 3 else {}
        yield "two", (self.first + self.second - 5).square().sum(), {"two": torch.tensor(float(step))} | rare


def test_a_group_is_updated_before_the_next_loss_is_asked_for() -> None:
    trainer = Trainer(TwoParts(), TrainConfig(lr=0.1), CPU)
    trainer.train_step(torch.zeros(1))
    assert trainer.model.seen == [pytest.approx(0.1)]  # Adam's first step has the length of the learning rate


def test_a_loss_updates_its_own_group_alone() -> None:
    trainer = Trainer(TwoParts(), TrainConfig(lr=0.1), CPU)
    trainer.train_step(torch.zeros(1))
    assert float(trainer.model.first.detach()) == pytest.approx(0.1)  # the second loss pulls at it, too, and must not
    for _ in range(300):
        trainer.train_step(torch.zeros(1))
    assert float(trainer.model.first.detach()) == pytest.approx(1, abs=0.01)
    assert float(trainer.model.second.detach()) == pytest.approx(4, abs=0.05)


def test_metrics_are_means_over_the_steps_that_had_them() -> None:
    trainer = Trainer(TwoParts(), TrainConfig(lr=0.25), CPU)
    for _ in range(5):
        trainer.train_step(torch.zeros(1))
    found = trainer.take_metrics()
    assert found["two"] == pytest.approx((0 + 1 + 2 + 3 + 4) / 5)
    assert found["rare"] == 8
    assert found["lr"] == 0.25
    trainer.train_step(torch.zeros(1))
    assert trainer.take_metrics()["two"] == 5


def test_the_constant_schedule_is_the_papers() -> None:
    config = TrainConfig(lr=0.002)
    assert {config.lr_at(step) for step in (0, 1, 119_999, 10**7)} == {0.002}


def test_the_cosine_schedule_warms_up_and_ends_at_zero() -> None:
    config = TrainConfig(lr=1.0, schedule="cosine", warmup=10, horizon=110)
    assert [config.lr_at(step) for step in (0, 4, 9, 10, 60)] == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5])
    assert config.lr_at(110) == pytest.approx(0, abs=1e-12)
    assert config.lr_at(10**6) == config.lr_at(110)


def test_the_rate_of_the_step_reaches_the_optimizer() -> None:
    config = TrainConfig(lr=1.0, schedule="cosine", warmup=10, horizon=110)
    trainer = Trainer(TwoParts(), config, CPU)
    for step in range(3):
        trainer.train_step(torch.zeros(1))
        assert [o.param_groups[0]["lr"] for o in trainer.optimizers.values()] == [config.lr_at(step)] * 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_state_continues_bit_for_bit(precision: Any) -> None:
    config = TrainConfig(precision=precision, adam_beta1=0.5)
    through = Trainer(drnet(), config, CPU)
    for step in range(5):
        through.train_step(batch(step))
        if step == 2:
            weights = {name: value.clone() for name, value in through.model.state_dict().items()}
            state = through.state()
    continued = Trainer(drnet(beta=0.1), config, CPU)
    continued.model.load_state_dict(weights)
    continued.load_state(state)
    assert continued.step == 3
    for step in (3, 4):
        continued.train_step(batch(step))
    one, other = through.state(), continued.state()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for name, value in through.model.state_dict().items():
        assert torch.equal(value, continued.model.state_dict()[name])
    assert through.take_metrics() == continued.take_metrics()


def test_a_state_is_plain_tensors_of_its_own() -> None:
    trainer = Trainer(drnet(), TrainConfig(), CPU)
    trainer.train_step(batch(0))
    state = trainer.state()
    before = {name: value.clone() for name, value in state.items()}
    trainer.train_step(batch(1))
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert all(value.is_contiguous() and not value.requires_grad for value in state.values())


def test_loaded_moments_lie_in_memory_as_their_parameters_do() -> None:
    trainer = Trainer(drnet(), TrainConfig(), CPU)
    trainer.train_step(batch(0))
    other = Trainer(drnet(), TrainConfig(), CPU)
    other.load_state(trainer.state())
    for optimizer in other.optimizers.values():
        for parameter, values in optimizer.state.items():
            assert values["exp_avg"].stride() == values["exp_avg_sq"].stride() == parameter.stride()


def test_bfloat16_computes_losses_in_float32_and_near_the_others() -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        trainer = Trainer(drnet(), TrainConfig(precision=precision), CPU)
        trainer.train_step(batch(0))
        assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
        assert all(total.dtype == torch.float32 for total in trainer._sums.values())
        found[precision] = trainer.take_metrics()
    for name, value in found["fp32"].items():
        if name.startswith("loss/recon") or name == "discriminator/bce":
            assert found["bf16"][name] == pytest.approx(value, rel=0.05)
            assert found["bf16"][name] != value


def test_a_metric_that_is_not_finite_stops_with_its_name_and_step() -> None:
    trainer = Trainer(TwoParts(), TrainConfig(lr=0.1), CPU)
    trainer.train_step(torch.zeros(1))
    with torch.no_grad():
        trainer.model.first.fill_(math.nan)
    trainer.train_step(torch.zeros(1))
    with pytest.raises(NotFinite, match=r"^training diverged: one not finite by step 2; try a lower --lr$"):
        trainer.take_metrics()


def test_weights_are_checked_too_and_many_names_are_cut_short() -> None:
    trainer = Trainer(drnet(), TrainConfig(), CPU)
    trainer.check_finite()
    with torch.no_grad():
        for parameter in trainer.model.decoder.parameters():
            parameter.fill_(math.inf)
    with pytest.raises(NotFinite, match=r"decoder\.layers\.0\.weight, .* and \d+ more not finite by step 0") as raised:
        trainer.check_finite()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 1},
        {"horizon": 0},
        {"warmup": -1},
        {"max_offset": -1},
        {"seed": -1},
        {"lr": 0.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"adam_beta1": 1.0},
        {"precision": "fp16"},
        {"schedule": "linear"},
    ],
    ids=str,
)
def test_a_value_that_is_not_allowed_is_named_in_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} .* is not allowed") as raised:
        TrainConfig(**wrong)
    assert "\n" not in str(raised.value)


def test_settings_survive_json() -> None:
    config = TrainConfig(batch_size=7, schedule="cosine", warmup=3, precision="bf16")
    assert TrainConfig(**config.to_json()) == config
