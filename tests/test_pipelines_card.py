"""The card of a data set is what the hub reads, and true."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.shards.manifest import read_manifest
from drnet.pipelines.sharing.card import front_matter, write_card
from drnet.pipelines.verify import verify_data

Built = tuple[Path, str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "digits"
    data = BouncingDigits("optdigits", clips=6, frames=4, size=32)
    build(plan_build(data, "raw", 3), folder)
    write_card(folder)
    return folder


@pytest.fixture(scope="module")
def text(built: Path) -> str:
    return (built / "README.md").read_text()


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    return found


def test_the_front_matter_is_one_that_the_hub_understands(text: str) -> None:
    data = DatasetCard(text).data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["size_categories"] == ["n<1K"]
    assert data["pretty_name"].startswith("two bouncing")
    files = data["configs"][0]["data_files"]
    assert {row["split"]: row["path"] for row in files} == {"train": "train-*.tar", "test": "test-*.tar"}


def test_the_splits_are_told_as_the_hub_wants_them(built: Path, text: str) -> None:
    splits = {row["name"]: row for row in front(text)["dataset_info"]["splits"]}
    assert {name: row["num_examples"] for name, row in splits.items()} == {"train": 6, "test": 1}
    sizes = {
        split: sum((built / row.name).stat().st_size for row in rows)
        for split, rows in read_manifest(built).splits.items()
    }
    assert {name: row["num_bytes"] for name, row in splits.items()} == sizes


def test_the_data_files_are_the_shards(built: Path, text: str) -> None:
    for row in front(text)["configs"][0]["data_files"]:
        assert sorted(p.name for p in built.glob(row["path"])) == [
            r.name for r in read_manifest(built).splits[row["split"]]
        ]


def test_the_card_tells_counts_labels_licence_and_citation(built: Path, text: str) -> None:
    manifest = read_manifest(built)
    assert "| train | 6 | 24 |" in text
    for name in manifest.labels:
        assert f"`{name}`" in text
    for key in ("licence", "citation", "split_key", "content_key"):
        assert manifest.about[key] in text
    assert manifest.sources[0]["sha256"] in text


def test_the_picture_is_there(built: Path, text: str) -> None:
    (name,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert (built / name).stat().st_size > 1000


def test_a_card_is_no_stranger_to_verify_nor_to_the_next_build(built: Path) -> None:
    assert verify_data(built)[0] == []
    report = build(plan_build(BouncingDigits("optdigits", clips=6, frames=4, size=32), "raw", 3), built)
    assert report.written == 0
    assert (built / "README.md").exists()


def test_a_card_without_a_picture_shows_none(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in built.iterdir():
        if path.name not in ("README.md", "preview.png"):
            (folder / path.name).write_bytes(path.read_bytes())
    assert write_card(folder, picture=False) == [folder / "README.md"]
    assert "![" not in (folder / "README.md").read_text()
    assert not (folder / "preview.png").exists()


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        write_card(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("licence", "told"), [("generated, MIT", "mit"), ("UNLIMITED use", "other"), ("CC BY 4.0 (us)", "cc-by-4.0")]
)
def test_a_licence_is_known_by_its_whole_name(built: Path, licence: str, told: str) -> None:
    manifest = read_manifest(built)
    other = dataclasses.replace(manifest, about={**manifest.about, "licence": licence})
    assert yaml.safe_load(front_matter(other).strip("-"))["license"] == told
