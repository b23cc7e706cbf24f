"""The experiments on KTH actions: Fig. 6 to 12 (Sec. 4.3, appendices A and B)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drnet.datasets.contract import DataError
from drnet.pipelines.evaluation.classify import ClassifySettings, held_out
from drnet.pipelines.evaluation.classify_files import classify_files, write_results
from drnet.pipelines.evaluation.classify_pictures import point_rows, spread_text
from drnet.pipelines.evaluation.evaluate import evaluate, save_report
from drnet.pipelines.evaluation.inception import OURS, SAME
from drnet.pipelines.evaluation.inception_pictures import save_scores
from drnet.pipelines.export import load_features
from drnet.pipelines.figures.beside import runs_beside
from drnet.pipelines.figures.difference import difference_figure
from drnet.pipelines.figures.neighbours import neighbours_figure
from drnet.pipelines.figures.rollout import rollout_figure
from drnet.pipelines.figures.scene import Scene, open_scene
from drnet.pipelines.prediction.rollout import load_predictor
from drnet.pipelines.reproduction.clip_choice import EACH, far_clips, of_actions, told_of_far
from drnet.pipelines.reproduction.result import NOT_YET, Made
from drnet.pipelines.reproduction.tables import computed, frame_tables
from drnet.pipelines.reproduction.workshop import Workshop

MCNET = "MCNet"
OBSERVE, STEPS, EVERY = 10, 20, 3  # Fig. 6: every third of 20 predicted frames
BASELINES = (("AE-LSTM 24", "ae24"), ("AE-LSTM 128", "ae128"))
SUPERVISED = 93.9  # percent, in the caption of Fig. 8
MOTIONS = ("walking", "running")  # the sequences of Fig. 6
FAR_TIMES = (1, 5, 10, *range(11, 51, 3), *range(60, 101, 10))  # the columns of Fig. 7 and 11
ACROSS = 11  # of these side by side


def fig6(shop: Workshop, made: Made) -> None:
    """DrNet beside the autoencoder and MCNet, 20 frames."""
    scene = _scene(shop)
    runs = {name: shop.predictor("kth", variant) for name, variant in BASELINES}
    beside = runs_beside([f"{name}={run}" for name, run in runs.items()], scene.clips.frame_shape, scene.device)
    at = [1, 5, 10, *range(OBSERVE + 1, OBSERVE + STEPS + 1, EVERY)]
    made.figure(
        "rollout.png",
        rollout_figure(
            scene,
            of_actions(scene, MOTIONS, OBSERVE + STEPS, made.notes),
            at=at,
            steps=STEPS,
            copy=True,
            beside=beside,
            missing=[MCNET],
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
    shown, others = far_clips(scene, OBSERVE, OBSERVE + far)
    _far_figures(scene, made, shown, far, "")
    if 0 < len(others) < EACH:
        made.notes.append(f"Fig. 7 and 11 share the {len(shown) + len(others)} held-out clips that there are")
    report = _evaluate(shop, scene.run, ("frames",), "drnet", far)
    curves = save_report(made.folder / "metrics.json", report)
    if curves is not None:
        made.picture(curves.name, "PSNR and SSIM over the steps: of all held-out clips as far as they go.")
    frame_tables(made, {"DrNet": report}, others=("true_pose",))


def _far_figures(
    scene: Scene, made: Made, clips: Sequence[str], far: int, which: str, missing: Sequence[str] = ()
) -> None:
    """Draw long futures of some clips at the paper's times, and as a movie."""
    at = [time for time in FAR_TIMES if time <= OBSERVE + far]
    made.figure(
        "rollout.png",
        rollout_figure(scene, clips, at=at, steps=far, missing=missing, across=ACROSS),
        f"{OBSERVE} frames are observed and {far} predicted{which}; shown are the paper's times.",
    )
    made.figure("rollout.mp4", rollout_figure(scene, clips, steps=far, moving=True), "The same in motion.")
    made.notes.append(told_of_far(scene, clips, OBSERVE + far))


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
    one = results["DrNet"]
    rows.append(
        [f"always {one.commonest}, the most frequent in training", "any", *2 * [f"{100 * one.chance:.1f}%"], "", ""]
    )
    columns = [
        "features",
        "training persons",
        "network",
        "logistic regression",
        "network, person held out",
        "training rows",
    ]
    title = f"accuracy of the action on {one.rows['test']:,} rows of held-out persons ({spread_text(one)})"
    made.table(title, columns, rows)
    made.notes.append(
        f"of {sum(one.groups.values())} training persons {one.groups['validation']} is held out of each draw to stop the "
        "network early: its accuracy there is no test; training rows, windows of 24 frames, differ from person to person"
    )
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
    save_scores(made.folder / "scores.png", found)
    made.picture("scores.png", "The score of 10 frames against how far they lie from the last observed one.")
    for title, cell in (
        (f"Inception Score of {found['window']} frames, and its standard error over clips", _score),
        ("windows whose action is told rightly", lambda row: _percent(row["right"])),
        ("windows of the most frequent action", lambda row: _percent(row["frequent"])),
        ("windows (of clips)", lambda row: f"{row['windows']} ({row['clips']})"),
    ):
        made.table(title, ["offset", *map(str, found["offsets"])], _scores(found, cell))
    made.notes.append(_told_of(found["classifier"]))
    made.notes.append(
        f"real frames end with their clips: '{OURS}{SAME}' are predictions of the windows that the real frames' row is of, "
        f"'{OURS}, all windows' those of all; of one window a score is 1 whatever it shows, and is left out"
    )
    for at, row in zip(found["offsets"], found["rows"][OURS], strict=True):
        if at in (found["offsets"][0], found["offsets"][-1]):
            made.number(f"DrNet, offset {at}", row["score"], 2)


def _told_of(judge: Mapping[str, Any]) -> str:
    """Return how good the classifier is, and what always naming one action would be."""
    held, (low, high), most = judge["held_out"], judge["interval"], judge["most_frequent"]
    return (
        f"the classifier tells the action of {_percent(judge['accuracy'])} of {held['examples']} true held-out windows of "
        f"{held['clips']} clips (95% interval, a clip counted as one: {_percent(low)} to {_percent(high)}); always naming "
        f"{most['class']} would be right for {_percent(most['share'])}"
    )


def _score(row: Mapping[str, Any]) -> str:
    if row["score"] is None:
        return "-"
    return f"{row['score']:.2f}" + ("" if row["error"] is None else f" ± {row['error']:.2f}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _scores(found: Mapping[str, Any], cell: Callable[[Mapping[str, Any]], str]) -> list[list[str]]:
    """Return a row of texts over the offsets for each method, and a place for those that are not there."""
    rows = []
    for method, values in found["rows"].items():
        if isinstance(values, str):
            rows.append([method, NOT_YET, *[""] * (len(found["offsets"]) - 1)])
        else:
            rows.append([f"{method}, all windows" if method + SAME in found["rows"] else method, *map(cell, values)])
    return rows


def fig10(shop: Workshop, made: Made) -> None:
    """Nearest training frames of generated ones."""
    scene = _scene(shop)
    predictor = load_predictor(scene.run, str(scene.device))
    figure = neighbours_figure(
        scene, train_clips=shop.scale.searched, predictor=predictor, steps=STEPS, progress=shop.progress
    )
    said = "Generated frames; nearest training frames by pose, and by content and pose."
    made.notes.append(made.figure("neighbours.png", figure, said)["content_note"])


def fig11(shop: Workshop, made: Made) -> None:
    """Further futures of 100 frames."""
    scene, far = _scene(shop), shop.scale.far
    first, others = far_clips(scene, OBSERVE, OBSERVE + far)
    which = ", of other clips than Fig. 7's" if others else ", of the same clip as Fig. 7: there is no other"
    _far_figures(scene, made, others or first, far, which, [MCNET])
    if others and len(others) < EACH:
        made.notes.append(f"Fig. 7 and 11 share the {len(first) + len(others)} held-out clips that there are")


def fig12(shop: Workshop, made: Made) -> None:
    """Predictions minus the truth."""
    scene = _scene(shop)
    chosen = of_actions(scene, MOTIONS, OBSERVE + STEPS, made.notes)
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


def _persons(features: Path, wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of training persons that there are enough of."""
    found = load_features(features)
    there = len(np.unique(found.labels["person"][found.split == "train"]))
    possible = tuple(count for count in wanted if count <= there - held_out(there))
    if not possible:
        raise DataError(f"the training clips show {there} person; two are needed, of whom one is held out")
    return possible
