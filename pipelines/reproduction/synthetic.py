"""The experiments on digits, toys and chairs: Fig. 3, 4, 5 and Table 1 (Sec. 4.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from drnet.pipelines.evaluation.classify import ClassifySettings, classify
from drnet.pipelines.evaluation.classify_pictures import save_confusion
from drnet.pipelines.evaluation.classify_result import Estimate, Result, spread_of
from drnet.pipelines.evaluation.evaluate import evaluate, save_report
from drnet.pipelines.evaluation.windows import Which
from drnet.pipelines.export import load_features
from drnet.pipelines.figures.beside import runs_beside
from drnet.pipelines.figures.interpolate import interpolate_figure
from drnet.pipelines.figures.rollout import rollout_figure
from drnet.pipelines.figures.scene import open_scene
from drnet.pipelines.figures.swap import swap_figure
from drnet.pipelines.files import pretty_json, write_whole
from drnet.pipelines.looking.pictures import save_png, tile
from drnet.pipelines.reproduction.result import NOT_YET, Made
from drnet.pipelines.reproduction.tables import (
    PLACES,
    disentanglement_table,
    frame_tables,
    identity_table,
    position_table,
    swap_table,
)
from drnet.pipelines.reproduction.workshop import Workshop
from drnet.pipelines.train import choose_device

CONDITIONS = (("0.1", ""), ("0", "beta0"))  # beta, and the variant of the run
FEATURES: tuple[Which, Which] = ("content", "pose")
MATHIEU_ACCURACY = 86.5  # percent, in Table 1
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
    identity_table(made, report)
    disentanglement_table(made, report)
    frame_tables(made, {"DrNet": report}, others=("true_pose",))


def fig4(shop: Workshop, made: Made) -> None:
    """Swaps of toys, with and without the adversarial loss."""
    run, plain = shop.run("toys"), shop.run("toys", "beta0")
    scene = open_scene(run, shop.shards("toys"), device=shop.device)
    scene = replace(scene, name="DrNet, beta 0.1", data=shop.chosen("toys").what)
    words = f"DrNet, beta 0 (without the adversarial loss)={plain}"
    others = runs_beside([words], scene.clips.frame_shape, scene.device)
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
    made.figure("interpolate.mp4", interpolate_figure(scene, rows=2, moving=True), "Two of the chairs, there and back.")
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
    found: dict[str, list[Result]] = {}
    for beta, variant in CONDITIONS:
        files = [shop.features("classes", variant, seed) for seed in range(shop.scale.seeds)]
        for which in FEATURES:
            name = f"{which}, beta {beta}"
            found[name] = _classified(files, which, shop)
            made.number(f"percent told from {name}", 100 * _accuracy(found[name]).mean)
    runs, fits = shop.scale.seeds, shop.scale.fits
    over = f"{spread_of(runs, 'run')}; of a run the mean of {fits} fits" if runs > 1 else spread_of(fits, "fit")
    rows = [
        [f"DrNet, beta {beta}{tail}", *(_accuracy(found[f"{which}, beta {beta}"], by).text() for which in FEATURES)]
        for by, tail in (("network", ""), ("logistic", ", logistic regression"))
        for beta, _ in CONDITIONS
    ]
    one = next(iter(found.values()))[0]
    chance = f"{100 * one.chance:.1f}%"
    rows += [[f"always {one.commonest}, the most frequent in training", chance, chance], [MATHIEU, NOT_YET, ""]]
    made.table(
        f"accuracy of the category on {one.rows['test']:,} frames of held-out toys ({over})",
        ["model", "from content", "from pose"],
        rows,
        {
            "DrNet": f"the paper's network of {one.settings['hidden']} hidden units in each layer, on the vectors",
            "logistic regression": "on the same vectors, beside it",
        },
    )
    _keep(made, found)
    _draw_confusion(made, found, spread_of(fits, "fit"))
    made.note("every fit, its seed, the settings and the counts of the confusion matrices are in table1/classify.json")
    for line in (line for results in found.values() for result in results for line in result.notes()):
        made.note(line)


def _classified(files: Sequence[Path], which: Which, shop: Workshop) -> list[Result]:
    """Return how well the category is told from each file."""
    settings = ClassifySettings("category", which, seeds=shop.scale.fits)
    device = str(choose_device(shop.device))
    return [classify(load_features(path), settings, device=device, progress=shop.progress) for path in files]


def _accuracy(found: Sequence[Result], classifier: str = "network") -> Estimate:
    """Return the accuracy over runs or, of a single run, over fits."""
    if len(found) == 1:
        return found[0].accuracy(classifier)
    return Estimate.of([float(np.mean(result.accuracy(classifier).values)) for result in found])


def _keep(made: Made, found: Mapping[str, Sequence[Result]]) -> None:
    """Write what `drnet classify` would, of every run."""
    named = {
        name + (f", run of seed {seed}" if len(results) > 1 else ""): result.to_json()
        for name, results in found.items()
        for seed, result in enumerate(results)
    }
    references = {f"{MATHIEU} (paper)": MATHIEU_ACCURACY}
    write_whole(made.folder / "classify.json", pretty_json({"results": named, "references": references}))


def _draw_confusion(made: Made, found: Mapping[str, Sequence[Result]], over: str) -> None:
    """Draw the confusion matrices of the first runs, and all of them in one picture."""
    pictures = []
    for name, results in found.items():
        path = made.folder / f"confusion-{name.replace(', beta ', '-beta')}.png"
        title = f"category from {name}: {results[0].accuracy().text()}\n{over}; cells: percent of the row"
        save_confusion(path, results[0], title)
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    count = len(FEATURES)
    save_png(made.folder / "confusion.png", tile([pictures[n : n + count] for n in range(0, len(pictures), count)]))
    runs = "; of the first of the runs" if len(next(iter(found.values()))) > 1 else ""
    made.picture("confusion.png", f"Which categories are taken for which, from content and from pose{runs}.")
