"""The experiments on digits, toys and chairs: Fig. 3, 4, 5 and Table 1 (Sec. 4.2)."""

from pathlib import Path

import numpy as np

from drnet.pipelines.evaluation.classify import ClassifySettings, classify
from drnet.pipelines.evaluation.classify_pictures import save_confusion
from drnet.pipelines.evaluation.classify_result import Estimate
from drnet.pipelines.evaluation.evaluate import evaluate, save_report
from drnet.pipelines.evaluation.windows import Which
from drnet.pipelines.export import load_features
from drnet.pipelines.figures.beside import runs_beside
from drnet.pipelines.figures.interpolate import interpolate_figure
from drnet.pipelines.figures.rollout import rollout_figure
from drnet.pipelines.figures.scene import open_scene
from drnet.pipelines.figures.swap import swap_figure
from drnet.pipelines.reproduction.result import NOT_YET, Made
from drnet.pipelines.reproduction.tables import PLACES, frame_tables, position_table, swap_table
from drnet.pipelines.reproduction.workshop import Workshop
from drnet.pipelines.train import choose_device

CONDITIONS = (("0.1", ""), ("0", "beta0"))  # beta, and the variant of the run
SHOWN = "confusion-content-beta0.1.png"  # of the confusion matrices; the others lie beside it
MATHIEU = "Mathieu et al. 2016"
DIGIT_TIMES = (1, 3, 5, 6, 8, 11, 16, 31, 56, 106, 206, 356)


def fig3(shop: Workshop, made: Made) -> None:
    """Swaps of digits, and long rollouts."""
    run, shards, scale = shop.predictor("digits"), shop.shards("digits"), shop.scale
    scene = open_scene(run, shards, device=shop.device)
    made.figure(
        "swap.png",
        swap_figure(scene, rows=5, columns=8, truth=True),
        "Left of the paper's figure: content from the first column, pose from the top row; below each row the truth.",
    )
    end = 5 + scale.far_digits
    at = [*(time for time in DIGIT_TIMES if time < end), end]
    made.figure(
        "rollout.png",
        rollout_figure(scene, rows=3, at=at, steps=scale.far_digits),
        f"Right of the paper's figure: 5 frames are observed, then {scale.far_digits} predicted.",
    )
    moving = rollout_figure(scene, rows=3, steps=min(100, scale.far_digits), moving=True)
    made.figure("rollout.mp4", moving, "The same clips in motion, the first steps.")
    places = [step for step in (1, 5, *PLACES) if step <= scale.far_digits]
    report = evaluate(
        run,
        shards,
        steps=scale.far_digits,
        sections=scale.sections,
        position_steps=places,
        clips=scale.scored,
        device=shop.device,
        progress=shop.progress,
    )
    curves = save_report(made.folder / "metrics.json", report)
    if curves is not None:
        made.picture(curves.name, "PSNR, SSIM and the error of the digits' positions over the predicted steps.")
    swap_table(made, report)
    position_table(made, report)
    frame_tables(made, {"DrNet": report}, others=("true_pose",))


def fig4(shop: Workshop, made: Made) -> None:
    """Swaps of toys, with and without the adversarial loss."""
    run, plain = shop.run("toys"), shop.run("toys", "beta0")
    scene = open_scene(run, shop.shards("toys"), device=shop.device)
    others = runs_beside([f"without adversarial loss={plain}"], scene.clips.frame_shape, scene.device)
    made.figure(
        "swap.png",
        swap_figure(scene, rows=4, columns=8, beside=others, missing=[MATHIEU]),
        "Content from the first column, pose from the top row: DrNet with beta 0.1, below it with beta 0.",
    )


def fig5(shop: Workshop, made: Made) -> None:
    """Interpolated poses and swaps of chairs."""
    run, shards = shop.run("chairs"), shop.shards("chairs")
    scene = open_scene(run, shards, device=shop.device)
    made.figure(
        "interpolate.png",
        interpolate_figure(scene, rows=4, columns=8),
        "Left of the paper's figure: linear interpolation in pose space; the true frames of the turn below.",
    )
    made.figure(
        "interpolate.mp4", interpolate_figure(scene, rows=4, columns=24, moving=True), "The same, there and back."
    )
    made.figure(
        "swap.png",
        swap_figure(scene, rows=5, columns=8, truth=True),
        "Right of the paper's figure: content from the first column, pose from the top row; below each row the truth.",
    )
    report = evaluate(run, shards, sections=("swap",), device=shop.device, progress=shop.progress)
    save_report(made.folder / "metrics.json", report)
    swap_table(made, report)


def table1(shop: Workshop, made: Made) -> None:
    """Categories of toys told from content and from pose, with and without the adversarial loss."""
    device, rows = choose_device(shop.device), list[list[str]]()
    for beta, variant in CONDITIONS:
        files = [shop.features("classes", variant, seed) for seed in range(shop.scale.seeds)]
        cells = []
        for which in ("content", "pose"):
            found = _accuracy(files, which, shop, str(device), made, f"confusion-{which}-beta{beta}.png")
            made.number(f"{which}, beta {beta}", 100 * found.mean)
            cells.append(found.text())
        rows.append([f"DrNet, beta {beta}", *cells])
    runs, fits = shop.scale.seeds, shop.scale.fits
    over = f"{runs} runs, each the mean of {fits} fits" if runs > 1 else f"{fits} fits of one run"
    made.table(
        f"accuracy of the category on held-out toys (95% interval over {over})",
        ["model", "from content", "from pose"],
        [*rows, [MATHIEU, NOT_YET, ""]],
    )


def _accuracy(files: list[Path], which: Which, shop: Workshop, device: str, made: Made, picture: str) -> Estimate:
    """Return the accuracy over runs or, of a single run, over fits; draws the confusion matrix of the first run."""
    settings = ClassifySettings("category", which, seeds=shop.scale.fits)
    found = [classify(load_features(path), settings, device=device, progress=shop.progress) for path in files]
    title = f"category from {which}: {found[0].accuracy().text()}"
    save_confusion(made.folder / picture, found[0], title)
    if picture == SHOWN:
        made.picture(picture, "Which categories are taken for which, told from the content with beta 0.1.")
    if len(found) == 1:
        return found[0].accuracy()
    return Estimate.of([float(np.mean(result.accuracy().values)) for result in found])
