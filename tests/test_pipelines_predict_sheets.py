"""How predictions are shown: what stands on the pages of a movie, and on a sheet of steps."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from drnet.pipelines.prediction.sheets import OBSERVED, PREDICTED, contact_sheet, movie_page


def test_a_movie_names_its_clips_and_says_where_one_has_ended() -> None:
    frame = np.zeros((32, 32, 1), np.uint8)
    pages = [movie_page(7, true, [frame, frame], 3, 8, keys) for true, keys in (
        ([frame, frame], ["person21_boxing_d1-2", "b"]),
        ([frame, None], ["person21_boxing_d1-2", "b"]),
        ([frame, frame], ["person21_boxing_d1-3", "b"]),
    )]  # fmt: skip
    known, ended, other = (page.astype(int) for page in pages)
    assert known.shape == ended.shape == other.shape
    changed = np.argwhere((known != ended).any(-1))
    assert changed[:, 1].min() > known.shape[1] / 2  # in the second column alone
    place = ended[changed[:, 0].min() : changed[:, 0].max() + 1, changed[:, 1].min() : changed[:, 1].max() + 1]
    assert place.shape[:2] == (32 * 3 + 6, 32 * 3 + 6)
    words = (place < 180).all(-1)  # dark on a light ground: neither a white place nor a black frame
    assert 50 < words.sum() < 0.1 * words.size
    named = np.argwhere((known != other).any(-1))
    assert named[:, 0].max() < 60  # the name stands above the first column
    assert named[:, 1].max() < known.shape[1] / 2 + 20


def test_a_contact_sheet_shows_the_chosen_steps_in_their_colours() -> None:
    def stream() -> Iterator[Any]:
        for time in range(6):
            yield (
                time,
                [None if time > 4 else np.full((32, 32, 1), 10 * time, np.uint8)],
                [np.full((32, 32, 1), 100 + time, np.uint8)],
            )

    sheet = contact_sheet(stream(), ["one"], 2, [1, 4])
    shown = {tuple(colour) for colour in sheet.reshape(-1, 3).tolist()}
    assert {OBSERVED, PREDICTED, (10, 10, 10), (20, 20, 20), (102, 102, 102), (105, 105, 105)} <= shown
    for grey in (101, 104):  # the observed frame's own row alone; and a step that was not chosen
        assert (sheet == grey).all(-1).sum() < 96  # a letter's edge may be so grey
