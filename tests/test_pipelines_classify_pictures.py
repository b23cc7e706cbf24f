"""A classification's tables and pictures: the figures they state, and that they show what differs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from drnet.pipelines.evaluation.classify_pictures import (
    confusion_rows,
    point_rows,
    save_confusion,
    save_curve,
    spread_text,
)
from drnet.pipelines.evaluation.classify_result import Point, Result, Run

NAMES = ("walk", "jog", "never shown", "box")
GOOD = np.array([[8, 2, 0, 0], [1, 9, 0, 0], [0, 0, 0, 0], [0, 0, 0, 20]])
BAD = np.array([[5, 5, 0, 0], [4, 6, 0, 0], [0, 0, 0, 0], [0, 0, 0, 20]])


def result(matrices: dict[int, list[NDArray[np.int64]]], **settings: Any) -> Result:
    """Return a result with a draw of every matrix, by number of groups."""
    points = []
    for groups, counts in matrices.items():
        share = [float(np.trace(one) / one.sum()) for one in counts]
        both = [
            ({"network": s, "logistic": s / 2}, {"network": c, "logistic": c.T})
            for s, c in zip(share, counts, strict=True)
        ]
        points.append(Point(groups, tuple(Run(n, 0, 10 * groups + n, 5, 0.5, *pair) for n, pair in enumerate(both))))
    facts = {"features": "pose", "group": "person", "persons": tuple(matrices), "draws": 2, "seeds": 1}
    rows = tuple(GOOD.sum(1).tolist())
    return Result(
        label="action",
        names=NAMES,
        settings=facts | settings,
        points=tuple(points),
        chance=0.5,
        rows={"train": 40, "test": 40},
        clips={"train": 4, "test": 4},
        groups={"train": 12, "validation": 4},
        shared=0,
        left_out={},
        train_classes=rows,
        test_classes=rows,
        origin={},
    )


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_table_has_an_interval_and_the_rows_of_every_point() -> None:
    found = point_rows(result({1: [GOOD, GOOD], 2: [GOOD, BAD], 3: [GOOD, BAD, GOOD]}))
    assert found[0] == ["1", "92.5% (all 2)", "46.2% (all 2)", "50.0%", "10 to 11"]
    assert found[1] == ["2", "85.0% (92.5, 77.5)", "42.5% (46.2, 38.8)", "50.0%", "20 to 21"]
    assert found[2][1] == "87.5% (66.0 to 100.0)"
    assert [row[0] for row in found] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"draws": 2}, "mean of 2 draws, each in brackets"),
        ({"draws": 5, "seeds": 2}, "mean of 5 draws of 2 seeds, in brackets: its 95% interval"),
        ({"draws": 1, "seeds": 3}, "mean of 3 seeds, in brackets: its 95% interval"),
        ({"persons": (), "seeds": 2}, "mean of 2 seeds, each in brackets"),
    ],
    ids=str,
)
def test_what_stands_in_brackets_is_told(settings: dict[str, Any], text: str) -> None:
    assert spread_text(result({1: [GOOD]}, **settings)) == text


def test_two_draws_are_points_and_no_bar_that_reaches_from_nothing_to_everything(tmp_path: Path) -> None:
    """A bar of Student's t over two such values would span the whole height."""
    save_curve(tmp_path / "c.png", {"DrNet": result({1: [GOOD, GOOD], 2: [GOOD, BAD]})})
    sheet = read(tmp_path / "c.png").astype(int)
    blue = (sheet[..., 2] - sheet[..., 0] > 60).any(1)
    drawn = np.flatnonzero(blue[: sheet.shape[0] // 2])  # the legend lies below
    assert 5 < drawn[-1] - drawn[0] < 0.25 * sheet.shape[0]  # 77.5 to 92.5 of 101
    assert not blue[drawn[0] : drawn[-1]].all()  # marks, and no bar from one to the other


def test_a_confusion_matrix_is_shares_and_counts_of_the_classes_there_are() -> None:
    columns, rows = confusion_rows(result({1: [GOOD, GOOD]}))
    assert columns == ["true action", "told walk", "told jog", "told box", "rows"]
    assert rows[0] == ["walk", "80% (16)", "20% (4)", "0% (0)", "20"]
    assert rows[2] == ["box", "0% (0)", "0% (0)", "100% (40)", "40"]
    assert confusion_rows(result({1: [GOOD, GOOD]}), "logistic")[1][0][1:3] == ["89% (16)", "11% (2)"]


def test_a_class_without_test_rows_has_no_shares() -> None:
    found = result({1: [GOOD]})
    _, rows = confusion_rows(Result(**{**vars(found), "train_classes": (10, 10, 5, 20)}))
    assert rows[2] == ["never shown", "-", "-", "-", "-", "0"]


def test_the_picture_is_dark_where_the_rows_are(tmp_path: Path) -> None:
    even = np.full((4, 4), 5)
    dark = []
    for number, matrix in enumerate((np.diag([10, 10, 0, 20]), even)):
        path = tmp_path / "new" / f"{number}.png"
        save_confusion(path, result({1: [matrix]}), "action from pose")
        sheet = read(path).astype(int)
        dark.append(((sheet[..., 2] - sheet[..., 0] > 60) & (sheet.sum(-1) < 250))[:, : sheet.shape[1] * 3 // 4].mean())
    assert dark[0] > 0.1  # three full cells of nine
    assert dark[1] == 0


@pytest.mark.parametrize("classifier", ["network", "logistic"])
def test_the_curve_shows_every_result_and_the_references(tmp_path: Path, classifier: str) -> None:
    results = {"DrNet": result({1: [GOOD.T, GOOD], 3: [GOOD, GOOD]}), "AE": result({1: [GOOD, GOOD], 3: [GOOD]})}
    sheets = []
    for number, (shown, lines) in enumerate(
        ((results, {"supervised": 93.9}), (results, {}), ({"AE": results["AE"]}, {}))
    ):
        save_curve(tmp_path / f"{number}.png", shown, classifier, lines)
        sheets.append(read(tmp_path / f"{number}.png"))
    assert {sheet.shape for sheet in sheets} == {sheets[0].shape}
    assert not np.array_equal(sheets[0], sheets[1])
    assert not np.array_equal(sheets[1], sheets[2])
