"""The training step: who is updated when, the schedules, and a state that continues bit for bit."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.model import DrNet, DrNetConfig
from drnet.trainer import NotFinite, TrainConfig, Trainer, computing

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
    trainer.train_step(torch.zeros(1))
    told = r"^training diverged: one not finite in step 2; try a lower --lr, or --clip-norm 1$"
    with pytest.raises(NotFinite, match=told) as raised:
        trainer.take_metrics()
    assert raised.value.step == 1  # counted from 0, the first of the two


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


class Linear(nn.Module):
    """A model without BatchNorm whose loss is a mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0, -2.0, 3.0]]))
            self.layer.bias.zero_()
        self.sizes: list[int] = []

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"weight": [self.layer.weight], "bias": [self.layer.bias]}

    def losses(self, rows: Tensor, step: int, targets: Tensor) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        self.sizes.append(len(rows))
        weight, bias = self.layer.weight, self.layer.bias
        for name, held in (("weight", (weight, bias.detach())), ("bias", (weight.detach(), bias))):
            loss = (F.linear(rows, *held).squeeze(1) - targets).square().mean()
            yield name, loss, {f"loss/{name}": loss.detach()}


def rows_of(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.rand(12, 3, generator=generator), torch.rand(12, generator=generator)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_a_batch_in_parts_gives_the_same_weights_and_metrics(parts: int) -> None:
    whole = Trainer(Linear(), TrainConfig(batch_size=12, lr=0.1), CPU)
    cut = Trainer(Linear(), TrainConfig(batch_size=12, lr=0.1, accumulate=parts), CPU)
    for step in range(5):
        whole.train_step(*rows_of(step))
        cut.train_step(*rows_of(step))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(cut.model.state_dict()[name], value)
    assert cut.take_metrics() == pytest.approx(whole.take_metrics())
    assert set(cut.model.sizes) == {12 // parts}


def test_drnet_trains_in_parts_each_group_before_the_next() -> None:
    trainer = Trainer(drnet(), TrainConfig(batch_size=8, accumulate=2), CPU)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train_step(batch(0))
    moved = {name for name, value in trainer.model.named_parameters() if not value.equal(before[name])}
    assert moved == {name for name, _ in trainer.model.named_parameters()}
    assert set(trainer.take_metrics()) >= {"loss/reconstruction", "discriminator/bce"}


@pytest.mark.parametrize("frames", [2, 4])  # of four the pose encoder sees two more, for the discriminator alone
@pytest.mark.parametrize("parts", [2, 3])
def test_running_statistics_move_once_a_step_however_many_parts_it_has(frames: int, parts: int) -> None:
    one = torch.rand(4, frames, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    whole = Trainer(drnet(), TrainConfig(batch_size=4), CPU)
    cut = Trainer(drnet(), TrainConfig(batch_size=4 * parts, accumulate=parts), CPU)
    kept = {name: value.clone() for name, value in whole.model.named_buffers()}
    whole.train_step(one)
    cut.train_step(one.repeat(parts, 1, 1, 1, 1))
    expected, found = dict(whole.model.named_buffers()), dict(cut.model.named_buffers())
    moved = {name.split(".")[0] for name, value in expected.items() if not value.equal(kept[name])}
    assert moved == {"content_encoder", "pose_encoder", "decoder"}
    for name, value in expected.items():  # the counts of batches, too
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)


def test_running_statistics_of_parts_are_the_mean_of_what_each_part_gives() -> None:
    halves = [batch(0)[:4], batch(1)[:4]]
    cut = Trainer(drnet(), TrainConfig(batch_size=8, accumulate=2), CPU)
    cut.train_step(torch.cat(halves))
    alone = [Trainer(drnet(), TrainConfig(batch_size=4), CPU) for _ in halves]
    for trainer, half in zip(alone, halves, strict=True):
        trainer.train_step(half)
    one, other = (dict(trainer.model.named_buffers()) for trainer in alone)
    for name, value in cut.model.named_buffers():
        if "running" in name:
            assert not one[name].equal(other[name])
            torch.testing.assert_close(value, (one[name] + other[name]) / 2, rtol=1e-5, atol=1e-7)


def test_clips_that_parts_cannot_share_are_refused_and_none_is_left_out() -> None:
    trainer = Trainer(Linear(), TrainConfig(batch_size=12, accumulate=4), CPU)
    with pytest.raises(ValueError, match="accumulate 4 is not allowed with 6 clips in a process; it must divide them"):
        trainer.train_step(*(value[:6] for value in rows_of(0)))


@pytest.mark.parametrize("wrong", [{"accumulate": 5}, {"accumulate": 6}, {"accumulate": 0}])
def test_parts_must_divide_the_batch_into_pairs_at_least(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="accumulate"):
        TrainConfig(batch_size=8, **wrong)


def test_a_gradient_is_clipped_to_its_norm_and_the_norm_is_told() -> None:
    free = Trainer(Linear(), TrainConfig(batch_size=12), CPU)
    clipped = Trainer(Linear(), TrainConfig(batch_size=12, clip_norm=0.01), CPU)
    rows, targets = rows_of(0)
    for trainer in (free, clipped):
        trainer.train_step(100 * rows, targets)
    true = free.model.layer.weight.grad.norm()
    assert true > 1
    assert clipped.model.layer.weight.grad.norm() == pytest.approx(0.01, rel=1e-4)
    assert clipped.take_metrics()["gradient/weight"] == pytest.approx(float(true))
    assert "gradient/weight" not in free.take_metrics()


def test_the_average_of_a_short_run_is_not_its_beginning() -> None:
    trainer = Trainer(Linear(), TrainConfig(batch_size=12, lr=0.1, ema=0.9999), CPU)
    start = trainer.model.layer.weight.detach().clone()
    for step in range(40):
        trainer.train_step(*rows_of(step))
    moved = (trainer.model.layer.weight.detach() - start).norm()
    assert (trainer.evaluated.layer.weight.detach() - start).norm() > 0.5 * moved


def test_the_average_follows_the_weights_and_is_what_evaluation_uses() -> None:
    trainer = Trainer(Linear(), TrainConfig(batch_size=12, lr=0.1, ema=0.4), CPU)
    expected: Tensor | None = None
    for step in range(6):
        trainer.train_step(*rows_of(step))
        now = trainer.model.layer.weight.detach().clone()
        decay = min(0.4, (1 + step) / (10 + step))  # grows from .18 to .4
        expected = now if expected is None else decay * expected + (1 - decay) * now
    torch.testing.assert_close(trainer.evaluated.layer.weight.detach(), expected)
    assert trainer.evaluated is not trainer.model
    assert Trainer(Linear(), TrainConfig(), CPU).evaluated.layer is not None


def test_an_average_continues_bit_for_bit() -> None:
    config = TrainConfig(batch_size=8, lr=0.01, ema=0.9)
    through = Trainer(drnet(), config, CPU)
    for step in range(4):
        through.train_step(batch(step))
    first = Trainer(drnet(), config, CPU)
    for step in range(2):
        first.train_step(batch(step))
    second = Trainer(drnet(), config, CPU)
    second.evaluated.load_state_dict(first.evaluated.state_dict())  # as a checkpoint does
    second.load_state(first.state())
    for step in range(2, 4):
        second.train_step(batch(step))
    for name, value in through.model.state_dict().items():
        assert value.equal(second.model.state_dict()[name]), name
    for name, value in through.evaluated.state_dict().items():
        assert value.equal(second.evaluated.state_dict()[name]), name


def test_tf32_is_on_while_a_step_runs_and_only_then() -> None:
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32
    for precision, rounded in (("tf32", True), ("fp32", False), ("bf16", False)):
        with computing(precision):
            assert (matmul.allow_tf32, convolutions.allow_tf32) == (rounded, rounded)
        assert (matmul.allow_tf32, convolutions.allow_tf32) == before


def test_synced_batchnorm_on_the_cpu_is_refused_where_it_would_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(drnet(), TrainConfig(batch_size=8, sync_batchnorm=True), CPU)  # one process: nothing to sync
    monkeypatch.setattr("drnet.trainer.processes", lambda: 2)
    with pytest.raises(ValueError, match="sync_batchnorm is not allowed on the CPU; it needs GPUs"):
        Trainer(drnet(), TrainConfig(batch_size=8, sync_batchnorm=True), CPU)
