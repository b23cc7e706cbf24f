"""Nearest training frames (Fig. 10): of held-out or generated frames, by pose, and by content and pose together.

The training clips stream through, a block at a time; what is kept is the best frame found for each query.
Axes: Q queries, N frames of a block, D length of a feature vector, H height, W width, C channels.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.pipelines.export import encode
from drnet.pipelines.figures.figure import Figure
from drnet.pipelines.figures.scene import Scene, clips_of, drawn_clips
from drnet.pipelines.figures.sheet import Cell, Row, Sheet, with_notes
from drnet.pipelines.figures.variation import blocks_of, content_note, some_of, variations
from drnet.pipelines.looking.clips import Shot, named_clips
from drnet.pipelines.looking.pictures import Frames
from drnet.pipelines.prediction.rollout import predicted_frames
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.source import Collection
from drnet.predictor import PosePredictor

BY = ("pose", "content and pose")


@dataclass(frozen=True)
class Query:
    """A frame whose neighbours are looked for.

    Attributes:
        clip: its number among the shown clips.
        time: its frame; of a generated one, the frame that it predicts.
        frame: (H, W, C) uint8.
    """

    clip: int
    time: int
    frame: Frames


@dataclass
class Nearest:
    """The nearest frame found so far of each query, by one kind of feature.

    Attributes:
        queries: (Q, D) float32.
        distance: (Q,), Euclidean.
        clip, time: (Q,), of the training frames.
    """

    queries: NDArray[np.float32]
    distance: NDArray[np.float64] = field(init=False)
    clip: NDArray[np.int64] = field(init=False)
    time: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.queries)
        self.distance = np.full(count, np.inf)
        self.clip, self.time = np.full(count, -1), np.full(count, -1)

    def meet(self, features: NDArray[np.float32], clips: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        """Compare with a block of frames: features (N, D), and the clip and the time of each (N,)."""
        wide = self.queries.astype(np.float64)
        squared = (wide**2).sum(1)[:, None] - 2 * wide @ features.T + (features.astype(np.float64) ** 2).sum(1)
        best = squared.argmin(1)
        found = np.sqrt(np.square(wide - features[best]).sum(1))  # the difference of large squares is less exact
        nearer = found < self.distance
        self.distance[nearer] = found[nearer]
        self.clip[nearer], self.time[nearer] = clips[best][nearer], times[best][nearer]


def neighbours_figure(
    scene: Scene,
    clips: Sequence[str] = (),
    rows: int = 3,
    columns: int = 6,
    seed: int = 0,
    train_clips: int = 2000,
    predictor: PosePredictor | None = None,
    steps: int = 20,
    progress: Progress | None = None,
) -> Figure:
    """Draw frames with the nearest training frames below.

    Args:
        scene: model and clips.
        clips: by name; else `rows` drawn ones.
        columns: frames of each clip, evenly spaced in time.
        seed: of what is drawn, the training clips to search included.
        train_clips: how many training clips are searched at most.
        predictor: where given, queries are frames that it predicts from each clip's first ones, as in the paper.
        steps: how many it predicts.
        progress: told of the search.

    Raises:
        DataError: for names that are not there, and where no training clips are at hand.
    """
    for name, value in (("train clips", train_clips), ("columns", columns), ("steps", steps)):
        if value < 1:
            raise DataError(f"{name} {value} is not allowed; it must be at least 1")
    draw = np.random.default_rng([seed, 3])
    training, split, _ = clips_of(scene.shards, "train")
    least = columns if predictor is None else predictor.config.observe
    shots = named_clips(scene.clips, clips, scene.split, spans=predictor is None)
    shots = shots or drawn_clips(scene.clips, rows, draw, least)
    queries = (
        _queries(scene, shots, columns) if predictor is None else _generated(scene, shots, columns, predictor, steps)
    )
    searched = np.sort(draw.choice(len(training), min(train_clips, len(training)), replace=False))
    found, scales, frames = nearest_frames(scene, queries, training, searched.tolist(), progress or Silent())
    here = variations(scene, scene.clips, some_of(range(len(scene.clips))))[0]
    there = variations(scene, training, some_of(searched.tolist()))[0]
    settings = {"seed": seed, "columns": columns, "train_clips": train_clips, "generated": predictor is not None}
    numbers = scene.origin(**settings) | {
        "figure": "neighbours",
        "distance": "Euclidean, each vector divided by its spread; content and pose one after the other",
        "spread": dict(zip(("content", "pose"), scales, strict=True)),
        "searched": {"split": split, "clips": len(searched), "of": len(training), "frames": frames},
        "same_by_both": _same(found),
        "content": {"train": asdict(there), scene.split: asdict(here)},
        "queries": [_told(scene, training, query, number, found) for number, query in enumerate(queries)],
    }
    sheet = _sheet(scene, training, queries, found, numbers["searched"], columns, predictor is not None)
    numbers["content_note"] = content_note(here, there, numbers["same_by_both"], len(queries), scene.split)
    sheet = with_notes(sheet, [numbers["content_note"]])
    return Figure([sheet], numbers)


def _queries(scene: Scene, shots: Sequence[Shot], columns: int) -> list[Query]:
    """Return frames of the clips, evenly spaced in time, or between those that were named."""
    queries = []
    for shot in shots:
        frames = scene.clips.frames(shot.clip)
        first = shot.first or 0
        last = len(frames) - 1 if shot.last is None else shot.last
        for time in np.linspace(first, last, columns).round().astype(int).tolist():
            queries.append(Query(shot.clip, time, np.array(frames[time])))
    return queries


def _generated(scene: Scene, shots: Sequence[Shot], columns: int, predictor: PosePredictor, steps: int) -> list[Query]:
    """Return frames that a predictor generates, evenly spaced from the first to the last step."""
    observe = predictor.config.observe
    firsts = [shot.first or 0 for shot in shots]
    for shot, first in zip(shots, firsts, strict=True):
        if scene.clips.sample(shot.clip).length < first + observe:
            raise DataError(f"clip {scene.key(shot.clip)} has too few frames to observe {observe} of them")
    observed = np.stack(
        [scene.clips.frames(shot.clip)[first : first + observe] for shot, first in zip(shots, firsts, strict=True)]
    )
    wanted = np.linspace(0, steps - 1, columns).round().astype(int).tolist()
    kept = dict(
        item for item in enumerate(predicted_frames(scene.model, predictor, observed, steps)) if item[0] in wanted
    )
    return [
        Query(shot.clip, first + observe + step, kept[step][number])
        for number, (shot, first) in enumerate(zip(shots, firsts, strict=True))
        for step in wanted
    ]


def nearest_frames(
    scene: Scene, queries: Sequence[Query], training: Collection, searched: Sequence[int], progress: Progress
) -> tuple[dict[str, Nearest], tuple[float, float], int]:
    """Return the nearest frames of some training clips by each kind of feature, the spreads, and the frames compared."""
    content, pose = variations(scene, training, some_of(searched))
    scales = content.spread, pose.spread

    def features(clips: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
        content, pose = (f / s for f, s in zip(encode(scene.model, list(clips), scene.device), scales, strict=True))
        return {BY[0]: pose, BY[1]: np.concatenate([content, pose], 1)}

    found = {by: Nearest(one) for by, one in features([query.frame[None] for query in queries]).items()}
    compared = 0
    progress.start("searching training frames", len(searched), "clips")
    try:
        for numbers, clips in blocks_of(training, searched):
            which = np.repeat(np.array(numbers), [len(clip) for clip in clips])
            times = np.concatenate([np.arange(len(clip)) for clip in clips])
            for by, one in features(clips).items():
                found[by].meet(one, which, times)
            compared += len(times)
            progress.advance(len(clips))
    finally:
        progress.stop()
    return found, scales, compared


def _same(found: dict[str, Nearest]) -> int:
    """Return how many queries have the same neighbour by both kinds of feature."""
    one, other = (found[by] for by in BY)
    return int(((one.clip == other.clip) & (one.time == other.time)).sum())


def _told(scene: Scene, training: Collection, query: Query, number: int, found: dict[str, Nearest]) -> dict[str, Any]:
    nearest = {
        by: {
            "clip": training.sample(int(one.clip[number])).key,
            "frame": int(one.time[number]) + 1,
            "distance": float(one.distance[number]),
        }
        for by, one in found.items()
    }
    return {"clip": scene.key(query.clip), "frame": query.time + 1, "nearest": nearest}


def _sheet(
    scene: Scene,
    training: Collection,
    queries: Sequence[Query],
    found: dict[str, Nearest],
    searched: dict[str, Any],
    columns: int,
    generated: bool,
) -> Sheet:
    what = "generated" if generated else "held-out" if scene.split == "test" else scene.split
    rows: list[Row] = []
    for first in range(0, len(queries), columns):  # a clip may be shown twice
        of = queries[first : first + columns]
        head = ", ".join(scene.told(of[0].clip).split("\n"))
        rows.append(Row(f"{what} frame", [Cell(q.frame, f"frame {q.time + 1}", not generated) for q in of], head))
        for by, one in found.items():
            cells = [_neighbour(training, one, first + place) for place in range(len(of))]
            rows.append(Row(f"nearest training frame by {by}", cells))
    limit = f"{searched['clips']:,} of {searched['of']:,} training clips ({searched['frames']:,} frames) were searched"
    return Sheet(
        f"Each {what} frame, and below it the training frames that are nearest to it in the model's features.",
        rows,
        notes=[
            f"{scene.about()} {limit}. Below each frame: its clip, its number there from 1, and the distance d "
            "in units of the spread of training frames: at 1, as far as a frame is from their mean.",
            *scene.notes,
        ],
    )


def _neighbour(training: Collection, nearest: Nearest, query: int) -> Cell:
    clip, time = int(nearest.clip[query]), int(nearest.time[query])
    caption = f"{training.sample(clip).key} frame {time + 1}\nd = {nearest.distance[query]:.3f}"
    return Cell(np.array(training.frames(clip)[time]), caption)
