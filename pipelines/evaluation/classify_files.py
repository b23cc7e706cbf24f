"""Classify features files, and write what was found: JSON, and its pictures beside it."""

from collections.abc import Mapping
from pathlib import Path

from drnet.datasets.contract import DataError
from drnet.pipelines.evaluation.classify import ClassifySettings, classify
from drnet.pipelines.evaluation.classify_pictures import save_confusion, save_curve, spread_text
from drnet.pipelines.evaluation.classify_result import Result
from drnet.pipelines.export import load_features
from drnet.pipelines.files import pretty_json, write_whole
from drnet.pipelines.progress import Progress
from drnet.pipelines.train import choose_device


def classify_files(
    files: Mapping[str, Path],
    settings: ClassifySettings,
    test: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Result]:
    """Classify each of some features files with the same settings, on the same draws.

    Args:
        files: by the name they are compared under.
        settings: what to tell, and how.
        test: a file whose test split is used instead, with a single file only.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: told of each fit.

    Raises:
        DataError: a file is not right, or does not fit the settings; the message names it where there are several.
    """
    chosen = choose_device(device)
    other = None if test is None else load_features(test)
    results: dict[str, Result] = {}
    for name, path in files.items():
        features = load_features(path)
        try:
            results[name] = classify(features, settings, other, chosen, progress)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    return results


def write_results(out: Path, results: Mapping[str, Result], references: Mapping[str, float]) -> list[Path]:
    """Write results as JSON by their names, a confusion matrix of each, and with several points or results the curve.

    Args:
        out: the JSON file; the pictures take its name and what they show.
        results: by name, of one label.
        references: accuracies of others in percent, by name: lines in the curve, and in the JSON.

    Returns:
        The files written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    found = {name: result.to_json() for name, result in results.items()}
    write_whole(out, pretty_json({"results": found, "references": dict(references)}))
    written = [out]
    for number, (name, result) in enumerate(results.items(), 1):
        written.append(out.with_name(f"{out.stem}-confusion{f'-{number}' if len(results) > 1 else ''}.png"))
        top = f"{name}: {result.label} from {result.settings['features']}, {result.accuracy().text()}"
        save_confusion(written[-1], result, f"{top}\n{spread_text(result)}; cells: percent of the row")
    if any(len(result.points) > 1 for result in results.values()):
        written.append(out.with_name(f"{out.stem}-curve.png"))
        save_curve(written[-1], results, references=references)
    return written
