"""Classification of features: planted facts are told on new groups, noise and groups are not; nothing is mixed up."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted_features import CLASSES, planted

from drnet.classifier import ClassifierConfig
from drnet.datasets.contract import DataError
from drnet.pipelines.evaluation import classify as module
from drnet.pipelines.evaluation.classify import ClassifySettings, classify, confusion, held_out
from drnet.pipelines.evaluation.classify_result import Estimate, Point, Result, Run, spread_of
from drnet.pipelines.export import Features

FEATURES = planted()
QUICK = {"hidden": 16, "seeds": 2, "window": 2}


@pytest.fixture(autouse=True, scope="module")
def short() -> Iterator[None]:
    """Let networks train for few steps: the planted facts need no more."""
    patch = pytest.MonkeyPatch()
    patch.setattr(
        module, "ClassifierConfig", lambda **s: ClassifierConfig(**s, most_steps=80, check_every=10, patience=4)
    )
    yield
    patch.undo()


@pytest.fixture(scope="module")
def found() -> Result:
    return classify(FEATURES, ClassifySettings("action", **QUICK))


def one_per_person(clips: int = 240, persons: int = 60) -> Features:
    """Return features that tell the person and nothing else; a person's clips all show one action, drawn by lot."""
    base = planted(clips, persons)
    draw = np.random.default_rng(1)
    who, looks = base.labels["person"].astype(int), draw.normal(size=(persons, 64)).astype(np.float32)
    content = np.repeat(looks[who][:, None], base.content.shape[1], 1)
    return replace(base, content=content, labels={**base.labels, "action": draw.integers(0, 3, persons)[who]})


def test_a_planted_category_is_told_on_new_persons(found: Result) -> None:
    for classifier in ("network", "logistic"):
        assert found.accuracy(classifier).mean > 0.9
    assert found.chance == pytest.approx(1 / 3, abs=0.1)
    assert (found.rows["test"], found.groups) == (
        found.test_classes[0] + sum(found.test_classes[1:]),
        {"train": 5, "validation": 1},
    )


@pytest.mark.parametrize(("label", "which"), [("coin", "content"), ("action", "pose")])
def test_what_the_vectors_do_not_hold_is_told_at_chance(label: str, which: Any) -> None:
    result = classify(FEATURES, ClassifySettings(label, which, hidden=16, seeds=3))
    for classifier in ("network", "logistic"):
        assert abs(result.accuracy(classifier).mean - 1 / len(result.names)) < 0.12


def test_both_vectors_tell_what_either_does() -> None:
    assert classify(FEATURES, ClassifySettings("phase", "both", hidden=16, seeds=1)).accuracy().mean > 0.85
    assert classify(FEATURES, ClassifySettings("phase", "content", hidden=16, seeds=1)).accuracy().mean < 0.65


def test_vectors_that_tell_only_the_person_do_not_help_with_new_persons() -> None:
    features = one_per_person()
    by_person, by_clip = (
        classify(features, ClassifySettings("action", hidden=64, dropout=0.0, seeds=3, group=group))
        for group in ("person", "clip")
    )
    for result in (by_person, by_clip):
        assert result.accuracy().mean < 0.55  # ten new persons of each action, guessed
        assert result.accuracy("logistic").mean < 0.55
    held = [np.mean([run.validation for run in result.points[0].runs]) for result in (by_person, by_clip)]
    assert held[0] < 0.6  # held-out persons are new as well
    assert held[1] > 0.9  # while held-out clips show persons that were trained on: a leak, had we asked for persons


def test_no_group_lies_on_two_sides_and_smaller_draws_are_part_of_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    person = FEATURES.labels["person"].astype(np.float32)
    marked = replace(FEATURES, content=np.repeat(person[:, None, None], 6, 1), pose=FEATURES.pose)
    sides: list[tuple[set[float], set[float]]] = []

    def watch(train: Any, held: Any, *rest: Any) -> Any:
        sides.append((set(train[0][:, 0].tolist()), set(held[0][:, 0].tolist())))
        return fit(train, held, *rest)

    fit = module.fit_classifier
    monkeypatch.setattr(module, "standardise", lambda train, test: (train, test))
    monkeypatch.setattr(module, "fit_classifier", watch)
    result = classify(marked, ClassifySettings("action", window=1, hidden=4, persons=(4, 1, 2), draws=3))
    assert [point.groups for point in result.points] == [1, 2, 4]
    assert [len(train) for train, _ in sides] == [1] * 3 + [2] * 3 + [4] * 3
    for train, held in sides:
        assert len(held) == held_out(6) == 1
        assert not train & held
        assert train | held <= set(range(6))  # test persons are 6 to 11
    by_draw = [sides[number::3] for number in range(3)]
    for draw in by_draw:
        assert draw[0][0] < draw[1][0] < draw[2][0]
        assert len({tuple(held) for _, held in draw}) == 1
    assert len({tuple(sorted(draw[2][0])) for draw in by_draw}) > 1
    sides.clear()
    classify(marked, ClassifySettings("action", window=1, hidden=4, seeds=3))
    assert [len(train) for train, _ in sides] == [5] * 3
    assert len({tuple(held) for _, held in sides}) > 1  # each seed holds out others


def test_more_persons_tell_more_and_every_figure_is_counted() -> None:
    result = classify(FEATURES, ClassifySettings("action", window=1, hidden=16, persons=(1, 5), draws=3, seeds=2))
    one, five = result.points
    assert (len(one.runs), len(five.runs)) == (6, 6)
    assert {(run.draw, run.seed) for run in one.runs} == {(d, s) for d in range(3) for s in range(2)}
    assert len(one.accuracy().values) == 3  # over draws, each the mean of its seeds
    assert one.runs[0].rows < five.runs[0].rows
    assert one.accuracy("logistic").mean <= five.accuracy("logistic").mean


def test_the_confusion_matrix_agrees_with_the_accuracy(found: Result) -> None:
    for classifier in ("network", "logistic"):
        counts = found.confusion(classifier)
        assert counts.sum(1).tolist() == [len(found.points[0].runs) * rows for rows in found.test_classes]
        assert np.trace(counts) / counts.sum() == pytest.approx(found.accuracy(classifier).mean)
    assert confusion(np.array([0, 0, 2]), np.array([1, 0, 2]), 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_the_same_settings_give_the_same_result(found: Result) -> None:
    again = classify(FEATURES, ClassifySettings("action", **QUICK))
    assert again.to_json() == found.to_json()


def test_the_result_is_json_that_says_what_it_was_made_from(found: Result) -> None:
    row = found.to_json()
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["settings"]["group"] == "person"
    assert row["settings"]["stride"] == 2
    facts = {"data_set": "toy", "manifest_build": "b1", "checkpoint_sha256": "abc", "checkpoint_step": 7}
    assert row["origin"] == {"train": facts, "test": facts}
    assert set(row["versions"]) == {"drnet", "python", "torch", "numpy", "scikit-learn"}
    assert [run["seed"] for run in row["points"][0]["runs"]] == [0, 1]


def test_settings_are_the_papers_where_none_are_given() -> None:
    images = ClassifySettings("action").resolved(FEATURES)
    assert (images.window, images.stride, images.hidden, images.seeds, images.group) == (1, 1, 256, 5, "person")
    kth = ClassifySettings("action", "pose", persons=(2, 1)).resolved(planted(data_set="kth"))
    assert (kth.window, kth.stride, kth.hidden, kth.seeds, kth.persons) == (24, 24, 1200, 1, (1, 2))
    assert ClassifySettings("action").resolved(planted(split_key="file", content_key="coin")).group == "coin"
    assert ClassifySettings("action").resolved(planted(split_key="", content_key="phase")).group == "clip"


def test_an_interval_is_students_t() -> None:
    found = Estimate.of([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == (0.0, pytest.approx(0.2 + 4.302653 * 0.1 / 3**0.5, abs=1e-6))  # cut off at 0
    assert found.text() == "20.0% (0.0 to 44.8)"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.7,), "70.0%"),
        ((0.931, 0.965), "94.8% (93.1, 96.5)"),
        ((0.0, 0.0), "0.0% (all 2)"),
        ((0.5, 0.5, 0.5), "50.0% (all 3)"),
    ],
)
def test_values_that_have_no_interval_worth_the_name_are_told_themselves(values: tuple[float, ...], text: str) -> None:
    found = Estimate.of(values)
    assert (found.low, found.high, found.values) == (None, None, values)
    assert found.text() == text


def test_what_stands_behind_a_mean_is_named() -> None:
    told = [spread_of(count, "draw") for count in (1, 2, 3)]
    assert told == [
        "one draw",
        "mean of 2 draws, each in brackets",
        "mean of 3 draws, in brackets: its 95% interval",
    ]
    assert spread_of(2, "draw", drawn=True) == "mean of 2 draws, each a small hollow mark"


def test_the_interval_of_draws_is_over_the_means_of_their_seeds() -> None:
    def run(draw: int, seed: int, accuracy: float) -> Run:
        return Run(draw, seed, 1, 1, 1.0, {"network": accuracy}, {"network": np.eye(2, dtype=np.int64)})

    point = Point(1, (run(0, 0, 0.1), run(0, 1, 0.3), run(1, 0, 0.6), run(1, 1, 0.6)))
    assert point.accuracy().values == pytest.approx((0.2, 0.6))
    assert Point(1, point.runs[:2]).accuracy().values == (0.1, 0.3)
    assert point.confusion().tolist() == [[4, 0], [0, 4]]


def test_a_test_file_replaces_the_test_split() -> None:
    other = planted(60, 12, seed=9)
    result = classify(FEATURES, ClassifySettings("action", **QUICK), other)
    assert result.clips == {"train": 60, "test": 30}
    assert result.accuracy().mean > 0.9
    assert result.shared == 0
    moved = replace(other, split=np.where(other.split == "train", "test", "train"))
    notes = classify(FEATURES, ClassifySettings("action", **QUICK), moved).notes()
    assert notes == ["6 groups of the test clips are in the train clips too: this is no score on new ones"]


def renamed(features: Features, names: tuple[str, ...]) -> Features:
    kind = replace(features.label_types["action"], names=names)
    return replace(features, label_types={**features.label_types, "action": kind})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            renamed(FEATURES, ("a", "b", "c")),
            r"has other categories in the test features \(a, b, c\) than in the training",
        ),
        (
            replace(FEATURES, content=FEATURES.content[..., :3]),
            "content has 3 numbers and the training features' 4; export",
        ),
        (planted(checkpoint_sha256="def"), "come from checkpoint def and the training features from abc; export both"),
        (replace(FEATURES, label_types={}), "label 'action' is not in the features; the features have no categories"),
        (replace(FEATURES, split=np.full(120, "train")), "the features hold no test clips"),
    ],
    ids=["names", "numbers", "checkpoint", "label", "split"],
)
def test_a_test_file_that_does_not_fit_is_refused(other: Features, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        classify(FEATURES, ClassifySettings("action", **QUICK), other)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        (
            FEATURES,
            {"persons": (1, 6)},
            "persons 6 is not allowed: 'person' has 6 values .* less 1 held out .*; at most 5",
        ),
        (
            FEATURES,
            {"window": 7},
            "window 7 is longer than every clip; the longest has 6 frames: give a lower --window",
        ),
        (
            planted(120, 2),
            {},
            "group 'person' has one value only in the train clips, and one is held out.* such as clip",
        ),
        (replace(FEATURES, content=FEATURES.content * np.nan), {}, "the train clips' content holds NaN or infinity"),
        (replace(FEATURES, split=np.full(120, "test")), {}, "the features hold no train clips; export them from"),
        (
            replace(FEATURES, labels={**FEATURES.labels, "action": np.ones(120, int)}),
            {},
            "label 'action' has one value only in the train clips; choose another label",
        ),
    ],
    ids=["persons", "window", "group", "finite", "split", "constant"],
)
def test_what_cannot_be_classified_is_refused(features: Features, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        classify(features, ClassifySettings("action", **(QUICK | settings)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": "poze"},
        {"window": 0},
        {"stride": 0},
        {"draws": 0},
        {"persons": (0,)},
        {"persons": (1, 1)},
        {"dropout": 1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"{next(iter(wrong))} .* is not allowed( .*)?; "):
        ClassifySettings("action", **wrong)


def test_classes_that_lack_on_one_side_and_clips_that_gave_no_row_are_told() -> None:
    action = FEATURES.labels["action"].copy()
    action[(FEATURES.split == "train") & (action == 1)] = 0
    action[(FEATURES.split == "test") & (action == 2)] = 0
    result = classify(
        replace(FEATURES, labels={**FEATURES.labels, "action": action}),
        ClassifySettings("action", **(QUICK | {"window": 5})),
    )
    short = {split: int((FEATURES.length[FEATURES.split == split] < 5).sum()) for split in ("train", "test")}
    assert result.notes() == [
        f"train: {short['train']} clips shorter than the window left out",
        f"test: {short['test']} clips shorter than the window left out",
        "no train clip shows jog: these test rows cannot be told",
        "no test clip shows box",
    ]
    assert result.names == CLASSES


def test_draws_of_persons_who_never_do_what_is_tested_are_told() -> None:
    """Only one training person walks: who is drawn without it cannot tell walking."""
    person, action = FEATURES.labels["person"], FEATURES.labels["action"].copy()
    train = FEATURES.split == "train"
    action[train & (person != 0) & (action == 0)] = 1
    features = replace(FEATURES, labels={**FEATURES.labels, "action": action})
    result = classify(features, ClassifySettings("action", persons=(1, 2), draws=4, hidden=4, window=2))
    for point in result.points:
        lacking = sum(run.classes[0] == 0 for run in point.runs)
        assert all(sum(run.classes) == run.rows for run in point.runs)
        group = "1 training person" if point.groups == 1 else "2 training persons"
        line = f"with {group} no training row shows walk in {lacking} of 4 fits: these test rows cannot be told there"
        assert (line in result.notes()) == bool(lacking)
    assert any(run.classes[0] == 0 for run in result.points[0].runs)


def test_persons_who_all_do_the_same_give_classifiers_that_name_it() -> None:
    person = FEATURES.labels["person"]
    action = np.where(FEATURES.split == "train", (person % 3).astype(int), FEATURES.labels["action"])
    features = replace(FEATURES, labels={**FEATURES.labels, "action": action})
    result = classify(features, ClassifySettings("action", persons=(1,), draws=2, hidden=4, window=1))
    assert set(result.points[0].accuracy("logistic").values) <= {
        rows / result.rows["test"] for rows in result.test_classes
    }
