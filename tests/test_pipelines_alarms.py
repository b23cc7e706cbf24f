"""When an alarm is told: from which step on, once, again when it returns, and not where another one explains it."""

from collections.abc import Iterator

import pytest

from drnet.model import DrNetConfig
from drnet.pipelines.training.alarms import ALARMS, LAST, Alarms, Patience, patience_of
from drnet.presets import PRESETS
from drnet.trainer import TrainConfig

WELL = {
    "loss/reconstruction": 0.01,
    "baseline/mean_frame": 0.04,
    "discriminator/accuracy": 0.6,
    "discriminator/bce": 0.68,
    "variance/pose": 0.3,
    "variance/content": 0.5,
    "participation/content": 5.0,
    "held_out/reconstruction": 0.012,
    "held_out/mean_frame": 0.04,
    "held_out/copy": 0.06,
    "held_out/bn_gap": 1.02,
    "held_out/pose_used": 0.5,
    "held_out/content_used": 0.2,
    "held_out/content_from_pose": 0.05,
    "held_out/pose_from_content": 0.1,
}
NOW = Patience(0, 0, 0, 0, 0, 0)
BAD = {
    "pose constant": {"variance/pose": 1e-7},
    "content constant": {"variance/content": 1e-7},
    "mean frame": {"loss/reconstruction": 0.041},
    "BatchNorm gap": {"held_out/bn_gap": 2.0},
    "unseen clips": {"held_out/reconstruction": 0.041},
    "pose ignored": {"held_out/pose_used": 0.001},
    "content ignored": {"held_out/content_used": 1e-5},
    "content on one line": {"participation/content": 1.1},
    "copying": {"held_out/reconstruction": 0.031, "held_out/copy": 0.03},
    "discriminator wins": {"discriminator/accuracy": 0.99},
    "content in pose": {"held_out/content_from_pose": 0.7},
    "pose in content": {"held_out/pose_from_content": 0.7},
}


def names(alarms: Alarms, step: int, metrics: dict[str, float]) -> list[str]:
    """Return the names of the alarms that are told."""
    lines = {line.partition(": ")[2] for line in alarms.check(step, metrics)}
    known = [alarm for alarm in ALARMS if all(name in metrics for name in alarm.reads)]
    return [alarm.name for alarm in known if alarm.says.format(*(metrics[name] for name in alarm.reads)) in lines]


def test_every_alarm_has_its_metrics() -> None:
    assert [alarm.name for alarm in ALARMS] == list(BAD)
    assert {name for alarm in ALARMS for name in alarm.reads} <= WELL.keys()
    assert {name for alarm in ALARMS for name in alarm.follows} <= BAD.keys()


def test_no_alarm_explains_itself_over_others() -> None:
    follows = {alarm.name: set(alarm.follows) for alarm in ALARMS}

    def causes(name: str) -> Iterator[str]:
        for cause in follows[name]:
            yield cause
            yield from causes(cause)

    assert [name for name in follows if name in causes(name)] == []


@pytest.mark.parametrize("name", BAD)
def test_an_alarm_is_told_when_it_appears_and_when_it_returns(name: str) -> None:
    alarms = Alarms(NOW)
    assert alarms.check(1, WELL) == []
    (line,) = alarms.check(2, WELL | BAD[name])
    assert line.startswith("alarm at step 2: ")
    assert "\n" not in line
    assert "; try " in line
    assert alarms.check(3, WELL | BAD[name]) == []
    assert alarms.standing == [name]
    for step in range(LAST):
        assert alarms.check(4 + step, WELL) == []
    assert alarms.standing == []
    assert names(alarms, 20, WELL | BAD[name]) == [name]


@pytest.mark.parametrize("name", BAD)
def test_an_alarm_near_its_threshold_does_not_come_and_go(name: str) -> None:
    alarms, told = Alarms(NOW), []
    for step in range(20):
        told += names(alarms, step, WELL | (BAD[name] if step % LAST else {}))
    assert told == [name]


@pytest.mark.parametrize("name", BAD)
def test_an_alarm_whose_metrics_are_not_there_stays_as_it_is(name: str) -> None:
    alarms = Alarms(NOW)
    alarms.check(1, WELL | BAD[name])
    for step in range(2 * LAST):
        assert alarms.check(step, {}) == []
    assert alarms.standing == [name]
    assert alarms.check(9, WELL | BAD[name]) == []


def test_what_follows_from_a_dead_pose_is_not_told_besides() -> None:
    alarms, bad = Alarms(NOW), {}
    for name in BAD.keys() - {"content constant", "discriminator wins", "pose in content"}:
        bad |= BAD[name]
    bad |= {"held_out/bn_gap": 1.0}
    assert names(alarms, 1, WELL | bad) == ["pose constant"]
    bad |= BAD["discriminator wins"] | BAD["pose in content"]
    assert names(alarms, 2, WELL | bad) == []
    assert alarms.standing == ["pose constant"]


def test_what_was_kept_back_is_told_where_its_cause_is_gone_and_it_is_not() -> None:
    alarms = Alarms(NOW)
    assert names(alarms, 1, WELL | BAD["pose constant"] | BAD["pose ignored"]) == ["pose constant"]
    told = [names(alarms, step, WELL | BAD["pose ignored"]) for step in range(2, 2 + LAST)]
    assert told == [[]] * (LAST - 1) + [["pose ignored"]]


def test_a_copy_is_no_rival_where_clips_stand_still() -> None:
    still = {"held_out/reconstruction": 0.031, "held_out/copy": 0.0001}
    assert Alarms(NOW).check(1, WELL | still) == []


@pytest.mark.parametrize("directions", [7.6, 8.4, 5.8, 2.7, 2.8, 6.2, 2.66, 3.5])  # digits, chairs, turned objects
def test_contents_of_good_runs_lie_on_no_line(directions: float) -> None:
    assert Alarms(NOW).check(1, WELL | {"participation/content": directions}) == []


@pytest.mark.parametrize("directions", [1.0, 1.001, 1.014, 1.08, 1.29])  # KTH with alpha 1, and a miniature of NORB
def test_contents_that_collapsed_are_told(directions: float) -> None:
    told = Alarms(NOW).check(1, WELL | {"participation/content": directions})
    assert len(told) == 1
    assert f"nearly on one line ({directions:.2f} directions" in told[0]


def test_nothing_is_expected_of_the_first_steps() -> None:
    everything = WELL | {name: value for bad in BAD.values() for name, value in bad.items()}
    for row in PRESETS.values():
        assert Alarms(patience_of(row.train, row.model)).check(199, everything) == []


@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if isinstance(row.model, DrNetConfig)])
def test_every_alarm_of_a_preset_is_told_within_its_horizon(name: str) -> None:
    row = PRESETS[name]
    told = []
    for alarm, bad in BAD.items():
        told += [alarm] if names(Alarms(patience_of(row.train, row.model)), row.train.horizon, WELL | bad) else []
    assert told == list(BAD)


def test_a_leak_that_no_loss_forbids_is_no_alarm() -> None:
    train = TrainConfig()
    without_beta = Alarms(patience_of(train, DrNetConfig(beta=0)))
    for name in ("discriminator wins", "content in pose", "content ignored"):
        assert without_beta.check(10**6, WELL | BAD[name]) == []
    assert names(without_beta, 10**6, WELL | BAD["pose in content"]) == ["pose in content"]
    without_alpha = Alarms(patience_of(train, DrNetConfig(alpha=0)))
    for name in ("pose in content", "content on one line"):
        assert without_alpha.check(10**6, WELL | BAD[name]) == []
    assert names(without_alpha, 10**6, WELL | BAD["content in pose"]) == ["content in pose"]


def test_a_model_without_the_two_losses_is_told_no_leak() -> None:
    patience = patience_of(TrainConfig(), object())
    told = [name for name, bad in BAD.items() if names(Alarms(patience), 10**6, WELL | bad)]
    assert [name for name in BAD if name not in told] == [
        "content ignored",
        "content on one line",
        "discriminator wins",
        "content in pose",
        "pose in content",
    ]


def test_a_leak_is_expected_until_its_loss_has_half_its_weight() -> None:
    alarms = Alarms(patience_of(TrainConfig(horizon=2000), DrNetConfig(beta_warmup=50_000)))
    assert alarms.check(24_999, WELL | BAD["discriminator wins"]) == []
    assert names(alarms, 25_000, WELL | BAD["discriminator wins"]) == ["discriminator wins"]


def test_an_average_of_weights_is_given_the_time_to_forget_the_first_ones() -> None:
    assert patience_of(TrainConfig(ema=0.9999), None).fair == pytest.approx(30_000)
