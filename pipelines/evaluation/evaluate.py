"""Evaluate a run on held-out clips: `metrics.json`, one section for each question, and a picture of the curves.

A section that cannot be computed is there too, and says why in one line under `not_computed`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import SPLITS, DataError
from drnet.guess import guess
from drnet.pipelines.evaluation import frames as frame_scores
from drnet.pipelines.evaluation.curves import save_metric_curves
from drnet.pipelines.evaluation.frames import FrameMeter
from drnet.pipelines.evaluation.perceptual import Extras
from drnet.pipelines.evaluation.positions import STEPS, PositionMeter
from drnet.pipelines.evaluation.protocols import DIGITS, Protocol, differences, protocol_of, windows_of
from drnet.pipelines.evaluation.sampled import sampled_features, spread
from drnet.pipelines.evaluation.scenes import DigitScenes, digit_scenes
from drnet.pipelines.evaluation.steps import Meter, Pass
from drnet.pipelines.evaluation.swap_scores import swap_scores
from drnet.pipelines.files import pretty_json, write_whole
from drnet.pipelines.looking.clips import named_clips
from drnet.pipelines.looking.truth import truth_of
from drnet.pipelines.prediction.rollout import FOLDER, load_predictor
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import Checkpoint, RunError, data_error_if_size_differs, latest_checkpoint, load_run
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import choose_device
from drnet.pipelines.versions import versions
from drnet.predictor import PosePredictor

METRICS_FORMAT = 1
SECTIONS = ("frames", "swap", "position", "disentanglement", "identity", "inception")
MANY_DIGITS = 100  # clips of digits that are scored by default: there can be any number of them
JUDGES = "judges"  # in the user's cache: what they learned of a data set serves every run


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        run, shards: where model and clips are from.
        model: in evaluation mode.
        checkpoint, config: of the model.
        predictor: of the model; None where `no_predictor` says why.
        no_predictor: why there is none, in one line.
        collection: the held-out clips; `clips` are the numbers of those that are scored.
        scenes: of bouncing digits.
        protocol: what is observed and predicted.
        seed: of everything drawn.
        device: of the model.
        progress: told of everything.
        extras: networks of the user, for distances between frames and between videos.
        names: by which the clips were asked for; None: they were not named.
        starts: where windows begin in clips of which a frame was named.
    """

    run: Path
    shards: str | Path
    model: Any
    checkpoint: Checkpoint
    config: dict[str, Any]
    predictor: PosePredictor | None
    no_predictor: str
    collection: Collection
    clips: tuple[int, ...]
    scenes: DigitScenes | None
    protocol: Protocol
    seed: int
    device: torch.device
    progress: Progress
    extras: Extras
    names: tuple[str, ...] | None
    starts: Mapping[int, tuple[int, ...]]


def evaluate(
    run: Path,
    shards: str | Path,
    protocol: str = "drnet",
    observe: int | None = None,
    steps: int | None = None,
    sections: Sequence[str] = SECTIONS,
    position_steps: Sequence[int] = STEPS,
    clips: int | Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    lpips: Path | None = None,
    fvd: Path | None = None,
    checkpoint: str = "last",
) -> dict[str, Any]:
    """Evaluate a run's checkpoint on the test split.

    Args:
        run: the run folder; its predictor is used where one is trained.
        shards: the data set's folder or its URL.
        protocol: `drnet`, `mcnet` or `svg`.
        observe, steps: instead of the protocol's.
        sections: which of `SECTIONS`.
        position_steps: steps at which digits are looked for.
        clips: of `frames`, `swap` and `position`: how many, at even distances, or their names, `KEY:FRAME` to observe
            from a frame on; None: all, or 100 of more digits.
        seed: of everything drawn.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: told of everything.
        lpips: weights of AlexNet or VGG-16, for LPIPS; None: without.
        fvd: weights of I3D, for FVD; None: without.
        checkpoint: `last`, `best` or a step.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: where the run, the shards or a setting are not right.
    """
    _check(sections, position_steps, clips)
    if (lpips or fvd) and "frames" not in sections:
        raise DataError(f"{'--lpips' if lpips else '--fvd'} scores predicted frames; add --section frames")
    on = choose_device(device)
    extras = Extras(lpips, fvd, on)
    subject = _open(run, shards, protocol, (observe, steps), clips, seed, on, extras, progress or Silent(), checkpoint)
    report = _origin(subject)
    if "frames" in sections or "position" in sections:
        found = _reason(lambda: rollout_sections(subject, sections, position_steps), "frames", "position")
        report |= {name: found[name] for name in ("frames", "position") if name in sections}
    others: dict[str, Callable[[Subject], dict[str, Any]]] = {
        "swap": swap_section,
        "disentanglement": disentanglement_section,
        "identity": identity_section,
        "inception": inception_section,
    }
    for name in (name for name in others if name in sections):
        report |= _reason(lambda name=name: {name: others[name](subject)}, name)  # type: ignore[misc]
    return report | {"extras": subject.extras.report()}


def save_report(out: Path, report: dict[str, Any]) -> Path | None:
    """Write `metrics.json`, and the curves next to it; return the picture's path, or None where there are none."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, pretty_json(report))
    if "steps" not in report.get("frames", {}):
        return None
    picture = out.with_suffix(".png")
    save_metric_curves(picture, report)
    return picture


def _check(sections: Sequence[str], position_steps: Sequence[int], clips: int | Sequence[str] | None) -> None:
    if unknown := [name for name in sections if name not in SECTIONS]:
        meant = guess(unknown[0], SECTIONS)
        raise DataError(f"section {unknown[0]!r} is not known{meant}; supported are {', '.join(SECTIONS)}")
    if wrong := [step for step in position_steps if step < 1]:
        raise DataError(f"step {wrong[0]} is not allowed; the first predicted frame is step 1")
    if isinstance(clips, int) and clips < 1:
        raise DataError(f"clips {clips} is not allowed; it must be at least 1")


def _reason(compute: Callable[[], dict[str, Any]], *names: str) -> dict[str, Any]:
    """Return what a section finds, or why it cannot."""
    try:
        return compute()
    except (DataError, RunError) as error:
        why = " ".join(str(error).split())
    except OSError as error:  # a file that cannot be read ends this section, not the others
        why = f"{error.filename or 'a file'}: {error.strerror or error}"
    return {name: {"not_computed": why} for name in names}


def _open(
    run: Path,
    shards: str | Path,
    name: str,
    lengths: tuple[int | None, int | None],
    clips: int | Sequence[str] | None,
    seed: int,
    device: torch.device,
    extras: Extras,
    progress: Progress,
    which: str,
) -> Subject:
    """Load model and predictor, and open the held-out clips."""
    model, checkpoint, config = load_run(run, str(device), which)
    collection = open_shards(shards, ["test"])
    data_error_if_size_differs(config, collection.frame_shape)
    extras.check(collection.frame_shape)
    predictor, why = None, ""
    try:
        predictor = load_predictor(run, str(device), checkpoint)
    except RunError as error:
        why = " ".join(str(error).split())
    scenes = digit_scenes(collection)
    data_set = collection.manifest.about["data_set"] if collection.manifest else ""
    clips = MANY_DIGITS if clips is None and data_set == DIGITS else clips
    chosen, starts = _chosen(collection, clips)
    protocol = protocol_of(name, data_set, *lengths)
    return Subject(
        run,
        shards,
        model,
        checkpoint,
        config,
        predictor,
        why,
        collection,
        chosen,
        scenes,
        protocol,
        seed,
        device,
        progress,
        extras,
        None if clips is None or isinstance(clips, int) else tuple(clips),
        starts,
    )


def _chosen(
    collection: Collection, clips: int | Sequence[str] | None
) -> tuple[tuple[int, ...], dict[int, tuple[int, ...]]]:
    """Return the clips to score, and where their windows begin in those of which a frame was named."""
    if clips is None or isinstance(clips, int):
        return tuple(spread(len(collection), clips)), {}
    firsts: dict[int, list[int | None]] = {}
    for shot in named_clips(collection, clips, spans=False):
        firsts.setdefault(shot.clip, []).append(shot.first)
    starts = {clip: tuple(n or 0 for n in found) for clip, found in firsts.items() if set(found) != {None}}
    return tuple(firsts), starts


def _origin(subject: Subject) -> dict[str, Any]:
    """Return what the numbers are made from."""
    manifest, trained = subject.collection.manifest, subject.config["data"].get("build")
    told = differences(subject.protocol, subject.collection)
    if subject.starts:
        told.append(f"windows of {len(subject.starts)} clips begin where --clips says")
    if manifest and trained and trained != manifest.build:
        told.append(
            f"the run was trained on build {trained[:12]} of a data set, these clips are of {manifest.build[:12]}"
        )
    predictor: dict[str, Any] = {"not_computed": subject.no_predictor}
    if subject.predictor is not None:
        own, seen = latest_checkpoint(subject.run / FOLDER), subject.predictor.config.observe
        predictor = {"step": own.step, "sha256": own.sha256} if own else {}
        if seen != subject.protocol.observe:
            told.append(f"the predictor was trained to observe {seen} frames, here it sees {subject.protocol.observe}")
    return {
        "format": METRICS_FORMAT,
        "protocol": subject.protocol.to_json() | {"differences": told},
        "run": {
            "preset": subject.config.get("preset"),
            "step": subject.checkpoint.step,
            "sha256": subject.checkpoint.sha256,
        },
        "predictor": predictor,
        "data": {
            "data_set": manifest.about["data_set"] if manifest else None,
            "build": manifest.build if manifest else None,
            "order_key": subject.collection.order_key,
            "split": "test",
            "clips": len(subject.collection),
            "clips_scored": len(subject.clips),
            "clips_named": subject.names and list(subject.names),
        },
        "seed": subject.seed,
        "device": str(subject.device),
        "versions": versions("torch", "torchmetrics", "numpy"),
    }


def rollout_sections(subject: Subject, sections: Sequence[str], position_steps: Sequence[int]) -> dict[str, Any]:
    """Predict all windows once, and return `frames` and `position`."""
    protocol, scenes = subject.protocol, subject.scenes
    windows = windows_of(protocol, subject.collection, subject.clips, subject.seed, scenes is not None, subject.starts)
    clips = [window.clip for window in windows.chosen]
    going = Pass(subject.model, subject.predictor, subject.collection, scenes, protocol.observe, subject.device)
    meters = list[Meter]()
    longest = max(window.future for window in windows.chosen)
    by_frame = FrameMeter(clips, longest, going.rows, subject.extras.metrics)
    if "frames" in sections:
        meters += [by_frame, *subject.extras.meters(protocol.means, len(clips))]
    place = None
    if "position" in sections and scenes is not None:
        within = [step for step in position_steps if step <= protocol.steps]
        if not within:
            raise DataError(f"no step of {', '.join(map(str, position_steps))} is among the {protocol.steps} predicted")
        starts = [window.start + protocol.observe - 1 for window in windows.chosen]
        place = PositionMeter(scenes, clips, starts, within, going.rows)
        meters.append(place)
    if meters:
        going.run(windows.chosen, meters, subject.progress)
    missing = {} if subject.predictor else {"predicted": {"not_computed": subject.no_predictor}}
    known = "positions are known of bouncing digits only (mnist)"
    found: dict[str, dict[str, Any]]
    found = {"position": {"not_computed": known} if place is None else place.report(subject.seed) | missing}
    if place is not None and (beyond := [step for step in position_steps if step > protocol.steps]):
        left_out = f"not among the {protocol.steps} predicted steps: {', '.join(map(str, beyond))}"
        found["position"]["notes"] = [*found["position"].get("notes", []), left_out]
    if "frames" in sections:
        found["frames"] = {"settings": frame_scores.settings(), "too_short": windows.left_out} | missing
        found["frames"] |= by_frame.report(protocol.means, subject.seed)
    if scenes is not None and protocol.steps >= scenes.period:
        again = f"digits are back where they were after {scenes.period} frames: at such steps a copy is the truth"
        for section in (part for part in found.values() if "not_computed" not in part):
            section |= {"repeats_every": scenes.period, "notes": [*section.get("notes", []), again]}
    return found


def swap_section(subject: Subject) -> dict[str, Any]:
    """Score swaps where the truth is known: digits from their own clips, chairs from the turntable."""
    truth = subject.scenes.swapped if subject.scenes else truth_of(subject.collection)
    if truth is None:
        return {"not_computed": "the truth of a swap is known of generated data only (mnist, chairs)"}
    scores = swap_scores(
        subject.model, subject.collection, truth, subject.clips, subject.device, subject.progress, seed=subject.seed
    )
    return {"settings": frame_scores.settings()} | scores


def disentanglement_section(subject: Subject) -> dict[str, Any]:
    """Score content and pose by the labels of both splits."""
    from drnet.pipelines.evaluation.disentanglement import disentanglement

    both = open_shards(subject.shards, SPLITS)
    features = sampled_features(
        subject.model, both, subject.checkpoint, subject.config, subject.device, subject.progress
    )
    return disentanglement(features, subject.seed, subject.progress)


def identity_section(subject: Subject) -> dict[str, Any]:
    """Ask a judge who learned on true frames whom swapped and predicted frames show."""
    from drnet.pipelines.evaluation.judge import CLIPS, identity, train_judge
    from drnet.pipelines.evaluation.judge import STEPS as JUDGED

    training, cache = open_shards(subject.shards, ["train"]), cache_folder() / JUDGES
    judge = train_judge(training, subject.collection, cache, str(subject.device), subject.seed, subject.progress)
    found = identity(
        subject.model,
        subject.predictor,
        subject.collection,
        judge,
        observe=subject.protocol.observe,
        steps=[step for step in JUDGED if step <= subject.protocol.steps] or [subject.protocol.steps],
        clips=CLIPS if subject.names else min(CLIPS, len(subject.clips)),
        device=str(subject.device),
        seed=subject.seed,
        progress=subject.progress,
    )
    return found if subject.predictor else found | {"rollout": {"not_computed": subject.no_predictor}}


def inception_section(subject: Subject) -> dict[str, Any]:
    """Return the Inception Score of predicted windows by a classifier of actions (Fig. 9)."""
    from drnet.pipelines.evaluation.inception import OFFSETS, WINDOW, inception, train_action_classifier

    steps = subject.protocol.steps
    offsets = [offset for offset in OFFSETS if offset + WINDOW - 1 <= steps]
    if not offsets:
        raise DataError(f"an Inception Score takes {WINDOW} predicted frames, and there are {steps}")
    training, cache = open_shards(subject.shards, ["train"]), cache_folder() / JUDGES
    classifier = train_action_classifier(
        training, subject.collection, cache, str(subject.device), subject.seed, subject.progress
    )
    found = inception(
        subject.model,
        subject.predictor,
        subject.collection,
        classifier,
        observe=subject.protocol.observe,
        offsets=offsets,
        device=str(subject.device),
        progress=subject.progress,
    )
    return found if subject.predictor else found | {"predicted": {"not_computed": subject.no_predictor}}
