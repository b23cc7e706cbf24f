"""The experiments on KTH actions: Fig. 6 to 12 (Sec. 4.3, appendices A and B)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drnet.datasets.contract import DataError
from drnet.pipelines.evaluation.classify import ClassifySettings, held_out
from drnet.pipelines.evaluation.classify_files import classify_files, write_results
from drnet.pipelines.evaluation.classify_pictures import point_rows
from drnet.pipelines.evaluation.evaluate import evaluate, save_report
from drnet.pipelines.export import load_features
from drnet.pipelines.figures.beside import runs_beside
from drnet.pipelines.figures.difference import difference_figure
from drnet.pipelines.figures.neighbours import neighbours_figure
from drnet.pipelines.figures.rollout import rollout_figure
from drnet.pipelines.figures.scene import Scene, open_scene
from drnet.pipelines.looking.pictures import save_curves
from drnet.pipelines.prediction.rollout import load_predictor
from drnet.pipelines.reproduction.result import NOT_YET, Made
from drnet.pipelines.reproduction.tables import computed, frame_tables
from drnet.pipelines.reproduction.workshop import Workshop

MCNET = "MCNet"
OBSERVE, STEPS, EVERY = 10, 20, 3  # Fig. 6: every third of 20 predicted frames
BASELINES = (("AE-LSTM 24", "ae24"), ("AE-LSTM 128", "ae128"))
SUPERVISED = 93.9  # percent, in the caption of Fig. 8
MOTIONS = ("walking", "running")  # the sequences of Fig. 6


def fig6(shop: Workshop, made: Made) -> None:
    """DrNet beside the autoencoder and MCNet, 20 frames."""
    scene = _scene(shop)
    runs = {name: shop.predictor("kth", variant) for name, variant in BASELINES}
    beside = runs_beside([f"{name}={run}" for name, run in runs.items()], scene.clips.frame_shape, scene.device)
    at = [1, 5, 10, *range(OBSERVE + 1, OBSERVE + STEPS + 1, EVERY)]
    made.figure(
        "rollout.png",
        rollout_figure(
            scene, _of_actions(scene, MOTIONS, made), at=at, steps=STEPS, copy=True, beside=beside, missing=[MCNET]
        ),
        f"{OBSERVE} frames are observed and {STEPS} predicted, of which every third is shown.",
    )
    reports = {}
    for name, run in {"DrNet": scene.run, **runs}.items():
        reports[name] = _evaluate(shop, run, ("frames",), "mcnet", STEPS)
        save_report(made.folder / f"metrics-{name.replace(' ', '-').lower()}.json", reports[name])
        _count(made, name, reports[name])
    frame_tables(made, reports, missing=[MCNET])


def fig7(shop: Workshop, made: Made) -> None:
    """Four futures of 100 frames."""
    scene, far = _scene(shop), shop.scale.far
    made.figure(
        "rollout.png",
        rollout_figure(scene, rows=4, columns=10, steps=far),
        f"{OBSERVE} frames are observed and {far} predicted.",
    )
    made.figure("rollout.mp4", rollout_figure(scene, rows=4, steps=far, moving=True), "The same in motion.")
    report = _evaluate(shop, scene.run, ("frames",), "drnet", far)
    curves = save_report(made.folder / "metrics.json", report)
    if curves is not None:
        made.picture(curves.name, "PSNR and SSIM over the steps: of all held-out clips as far as they go.")
    frame_tables(made, {"DrNet": report}, others=("true_pose",))


def fig8(shop: Workshop, made: Made) -> None:
    """Actions told from poses, with few training persons."""
    files = {"DrNet": shop.features("kth", "actions")}
    files |= {f"autoencoder {variant[2:]}": shop.features("kth", variant) for _, variant in BASELINES}
    persons = _persons(files["DrNet"], shop.scale.persons)
    if len(persons) < len(shop.scale.persons):
        made.notes.append(f"1 to {persons[-1]} training persons are at hand, of the {shop.scale.persons[-1]} asked for")
    settings = ClassifySettings("action", "pose", persons=persons, draws=shop.scale.draws, hidden=shop.scale.hidden)
    results = classify_files(files, settings, device=shop.device, progress=shop.progress)
    written = write_results(made.folder / "classify.json", results, {"fully supervised (paper)": SUPERVISED})
    for path in written:
        if "curve" in path.name:
            made.picture(path.name, f"Accuracy over the number of training persons: {', '.join(results)}.")
    first = next(path for path in written if "confusion" in path.name)
    made.picture(first.name, "DrNet: which actions are taken for which, with the most training persons.")
    rows = [[name, *row] for name, result in results.items() for row in point_rows(result)]
    columns = ["features", "training persons", "network [95%]", "logistic regression [95%]", "validation", "rows"]
    made.table("accuracy of the action on held-out persons", columns, rows)
    notes = {note for result in results.values() for note in result.notes()}
    made.notes += sorted(notes)
    means = {name: [point.accuracy().mean for point in result.points] for name, result in results.items()}
    best = [max(values) for values in zip(*(means[name] for name in means if name != "DrNet"), strict=True)]
    above = [ours > other for ours, other in zip(means["DrNet"], best, strict=True)]
    made.number("DrNet, percent, most training persons", 100 * means["DrNet"][-1])
    made.number("share of the numbers of persons with DrNet above both autoencoders", 100 * float(np.mean(above)))


def fig9(shop: Workshop, made: Made) -> None:
    """The Inception Score against the offset."""
    run = shop.predictor("kth")
    report = _evaluate(shop, run, ("inception",), "drnet", None)
    save_report(made.folder / "metrics.json", report)
    found = computed(report, "inception", made)
    if found is None:
        raise DataError(made.notes[-1])
    curves = {}
    for method, rows in found["rows"].items():
        if not isinstance(rows, str):
            there = [(at, row["score"]) for at, row in zip(found["offsets"], rows, strict=True) if row["score"]]
            curves[method] = ([float(at) for at, _ in there], [score for _, score in there])
    save_curves(
        made.folder / "scores.png", curves, "Inception Score (MCNet: not implemented yet)", "score", "offset, frames"
    )
    made.picture("scores.png", "The score of 10 frames against how far they lie from the last observed one.")
    for name, what, digits in (("score", "Inception Score", 2), ("right", "windows whose action is told rightly", 2)):
        made.table(
            f"{what}, of {found['window']} frames",
            ["offset", *map(str, found["offsets"])],
            _scores(found, name, digits),
        )
    judge = found["classifier"]
    made.notes.append(
        f"the classifier tells the action of {100 * judge['accuracy']:.1f}% of {judge['held_out']['examples']} true held-out "
        f"windows of {judge['held_out']['clips']} clips"
    )
    for at, row in zip(found["offsets"], found["rows"]["DrNet"], strict=True):
        if at in (found["offsets"][0], found["offsets"][-1]):
            made.number(f"DrNet, offset {at}", row["score"], 2)


def _scores(found: dict[str, Any], name: str, digits: int) -> list[list[str]]:
    """Return a row of values over the offsets for each method, and a place for those that are not there."""
    rows = []
    for method, values in found["rows"].items():
        if isinstance(values, str):
            rows.append([method, NOT_YET, *[""] * (len(found["offsets"]) - 1)])
        else:
            cells = ["-" if value[name] is None else f"{value[name]:.{digits}f}" for value in values]
            rows.append([method, *cells])
    return rows


def fig10(shop: Workshop, made: Made) -> None:
    """Nearest training frames of generated ones."""
    scene = _scene(shop)
    predictor = load_predictor(scene.run, str(scene.device))
    figure = neighbours_figure(
        scene, train_clips=shop.scale.searched, predictor=predictor, steps=STEPS, progress=shop.progress
    )
    made.figure("neighbours.png", figure, "Generated frames; nearest training frames by pose, and by content and pose.")


def fig11(shop: Workshop, made: Made) -> None:
    """Further futures of 100 frames."""
    scene, far = _scene(shop), shop.scale.far
    made.figure(
        "rollout.png",
        rollout_figure(scene, rows=4, columns=10, steps=far, seed=1, missing=[MCNET]),
        f"{OBSERVE} frames are observed and {far} predicted, of other clips than Fig. 7's.",
    )
    made.figure("rollout.mp4", rollout_figure(scene, rows=4, steps=far, seed=1, moving=True), "The same in motion.")


def fig12(shop: Workshop, made: Made) -> None:
    """Predictions minus the truth."""
    scene = _scene(shop)
    chosen = _of_actions(scene, MOTIONS, made)
    numbers = made.figure(
        "difference.png",
        difference_figure(scene, chosen, steps=STEPS, missing=[MCNET]),
        "Predictions and the copied last frame; below each what it differs by from the truth, and its PSNR.",
    )
    for number, clip in enumerate(numbers["clips"], 1):
        made.number(f"DrNet, sequence {number}, PSNR in dB", clip["scores"]["DrNet"]["mean_psnr"])
        copied = next(value for name, value in clip["scores"].items() if name != "DrNet")
        made.number(f"last frame copied, sequence {number}, PSNR in dB", copied["mean_psnr"])
    made.notes.append("the paper does not say which two sequences its numbers are of")


def _scene(shop: Workshop) -> Scene:
    return open_scene(shop.predictor("kth"), shop.shards("kth"), device=shop.device)


def _evaluate(shop: Workshop, run: Path, sections: Sequence[str], protocol: str, steps: int | None) -> dict[str, Any]:
    return evaluate(
        run,
        shop.shards("kth"),
        protocol,
        steps=steps,
        sections=sections,
        device=shop.device,
        progress=shop.progress,
    )


def _count(made: Made, name: str, report: dict[str, Any]) -> None:
    """Put a model's mean PSNR over the predicted frames beside that of the copied last frame."""
    found = computed(report, "frames", made)
    if found is None:
        return
    last = found["means"][-1]["psnr"]
    made.number(f"{name}, PSNR in dB", last["predicted"]["mean"] if "predicted" in last else None, 2)
    if name == "DrNet":
        made.number("last frame copied, PSNR in dB", last["copy_last"]["mean"], 2)


def _of_actions(scene: Scene, actions: Sequence[str], made: Made) -> list[str]:
    """Return the names of held-out clips, one of each action, begun so that what is predicted is in their middle.

    Where no clip shows an action one of another action is taken in its place, and that is noted.
    """
    names, needed = scene.clips.label_types["action"].names, OBSERVE + STEPS
    best: dict[str, int] = {}
    for clip in range(len(scene.clips)):
        action, length = names[scene.clips.labels(clip)["action"]], scene.clips.sample(clip).length
        before = best.get(action)
        if length >= needed and (before is None or scene.clips.sample(before).length < min(length, 3 * needed)):
            best[action] = clip
    if lacking := [action for action in actions if action not in best]:
        made.notes.append(f"no held-out clip of {needed} frames shows {', '.join(lacking)}: other actions are shown")
    order = [*(action for action in actions if action in best), *(action for action in best if action not in actions)]
    chosen = []
    for action in order[: len(actions)]:
        length = scene.clips.sample(best[action]).length
        chosen.append(f"{scene.key(best[action])}:{(length - needed) // 2}")
    return chosen


def _persons(features: Path, wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of training persons that there are enough of."""
    found = load_features(features)
    there = len(np.unique(found.labels["person"][found.split == "train"]))
    possible = tuple(count for count in wanted if count <= there - held_out(there))
    if not possible:
        raise DataError(f"the training clips show {there} person; two are needed, of whom one is held out")
    return possible
