"""Data sets by name: the project's, and one's own."""

import sys
from pathlib import Path

import pytest

from drnet.datasets.catalogue import BUILDERS, data_set_class, restore, settings_of
from drnet.datasets.chairs import Chairs
from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits


@pytest.mark.parametrize("name", BUILDERS)
def test_every_data_set_of_the_catalogue_is_there_and_says_what_a_card_needs(name: str) -> None:
    kind = data_set_class(name)
    about = kind.about
    assert about.name == name
    assert about.title
    assert about.licence
    assert about.citation
    assert settings_of(kind)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_setting_has_one_sentence_of_help(name: str) -> None:
    for setting in (found[1] for found in settings_of(data_set_class(name)).values()):
        assert setting.help[:1].isupper() or not setting.help[:1].isalpha() or ":" in setting.help
        assert setting.help.rstrip("]").strip()
        assert "\n" not in setting.help


def test_a_setting_has_type_help_and_default() -> None:
    hint, setting, default = settings_of(BouncingDigits)["clips"]
    assert (hint, default) == (int, 10_000)
    assert setting.help == "Clips of the train split."


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("imagenet", "not known; there are mnist, norb"),
        ("no_such_module:Thing", "'no_such_module' of data set .* is not found"),
        ("json:Thing", "has no class 'Thing'"),
        ("json:JSONDecoder", "is not a data set: it lacks about, labels"),
        ("json:dumps", "it is no class"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        data_set_class(name)


def test_a_module_that_fails_to_import_another_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_set.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        data_set_class("broken_set:Thing")
    assert "broken_set" not in sys.modules


def test_a_data_set_is_made_again_from_its_parameters() -> None:
    data = BouncingDigits("optdigits", clips=7, size=32, seed=3)
    again = restore("mnist", {**data.parameters(), "limit": 2}, source="optdigits")
    assert again.parameters() == {**data.parameters(), "limit": 2}
    assert again.count("train") == 2


def test_parameters_that_lead_elsewhere_are_refused() -> None:
    data = BouncingDigits("optdigits", clips=7)
    with pytest.raises(DataError, match="cannot be made again"):
        restore("mnist", {**data.parameters(), "colour": "blue"}, source="optdigits")


@pytest.mark.parametrize("name", ["videos", "frames"])
def test_a_data_set_of_files_is_not_made_again_without_them(name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}' is made from files; say where they are: --source DIR$"):
        restore(name, {"size": 64})


def test_chairs_of_models_are_made_again_from_where_the_models_are(tmp_path: Path) -> None:
    for name in ("a.stl", "b.stl"):
        (tmp_path / name).write_bytes(name.encode())
    data = Chairs(meshes=str(tmp_path), size=32)
    again = restore("chairs", data.parameters(), source=tmp_path)
    assert again.parameters() == data.parameters()
    assert again.item("train", 0) == data.item("train", 0)
    with pytest.raises(DataError, match=r"'chairs' is made from files; say where they are: --source DIR$"):
        restore("chairs", data.parameters())


def test_an_argument_that_no_manifest_records_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy_set.py").write_text(
        "from typing import Annotated\n"
        "from drnet.datasets.contract import Setting\n"
        "from drnet.datasets.mnist import BouncingDigits\n"
        "class Needy(BouncingDigits):\n"
        "    def __init__(self, ink: Annotated[int, Setting('How much.', 'N')]) -> None:\n"
        "        super().__init__('optdigits')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"needs ink, which is none of its parameters$"):
        restore("needy_set:Needy", {})
