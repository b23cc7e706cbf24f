"""`drnet data` as a user meets it: exit codes, one line for an error, and what is printed."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from drnet.cli.data import app
from drnet.cli.main import run as run_command
from drnet.datasets.catalogue import BUILDERS
from drnet.datasets.contract import Clip, Split
from drnet.datasets.mnist import BouncingDigits
from drnet.datasets.reading.digits import FILES
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.shards.manifest import read_manifest

ROOT = Path(__file__).parent.parent
SMALL = ["--clips", "6", "--frames", "3", "--size", "16", "--clips-per-shard", "2"]


def drnet(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run the real command in a process of its own."""
    command = [sys.executable, "-m", "drnet", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process; returns exit code, standard output and standard error."""
    monkeypatch.setattr("drnet.cli.console.end_on_signals", lambda: None)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["drnet", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run_command()
        shown = capfd.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "digits"
    build(plan_build(BouncingDigits("optdigits", clips=6, frames=3, size=16), "raw", 2), out)
    return out


def the_error(result: tuple[int, str, str]) -> str:
    """The one line of a command that failed."""
    code, _, stderr = result
    assert code == 1
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("drnet: error: ")]
    assert len(lines) == 1
    assert stderr.splitlines()[-1] == lines[0]
    return lines[0]


def idx_files(folder: Path) -> None:
    """Files of the right names, sizes and headers; their pixels are not MNIST's."""
    folder.mkdir()
    for file in (file for pair in FILES.values() for file in pair):
        head = (2051 if len(file.shape) == 3 else 2049).to_bytes(4, "big")
        head += b"".join(axis.to_bytes(4, "big") for axis in file.shape)
        (folder / file.name).write_bytes(head + bytes(file.size - len(head)))


def test_a_build_is_made_looked_at_verified_and_drawn(tmp_path: Path) -> None:
    out = tmp_path / "digits"
    built = drnet("data", "build", "mnist", "--source", "optdigits", *SMALL, "--out", out)
    assert built.returncode == 0, built.stderr
    assert built.stdout.splitlines() == [
        "train: 6 clips, 18 frames; items: 6 written",
        "test: 1 clips, 3 frames; items: 1 written",
        f"4 shards written, 0 kept: {out}",
        f"next: drnet data preview {out} --out preview.png",
    ]
    verified = drnet("data", "verify", out)
    assert (verified.returncode, verified.stdout) == (0, "4 shards, 7 clips checked: no problems\n")


def test_a_build_that_is_there_is_kept(inside: Any, folder: Path) -> None:
    code, out, _ = inside("data", "build", "mnist", "--source", "optdigits", *SMALL, "--codec", "raw", "--out", folder)
    assert code == 0
    assert f"0 shards written, 4 kept: {folder}" in out


def test_a_dry_run_writes_nothing_and_refuses_what_the_build_would_refuse(
    inside: Any, tmp_path: Path, folder: Path
) -> None:
    code, out, _ = inside(
        "data", "build", "mnist", "--source", "optdigits", *SMALL, "--dry-run", "--out", tmp_path / "x"
    )
    assert code == 0
    assert out.startswith(f"would write 4 of 4 shards and keep 0: 6 train, 1 test items in {tmp_path / 'x'} (build ")
    assert not (tmp_path / "x").exists()
    again = inside("data", "build", "mnist", "--source", "optdigits", *SMALL, "--seed", 3, "--dry-run", "--out", folder)
    assert "another build (seed 0, not 3; codec 'raw', not 'zstd')" in the_error(again)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "holds no train-images-idx3-ubyte, with .gz or without"),
        ("cut", "ends after 40,000 bytes; expected 47,040,016"),
        ("magic", "begins with the number 2052; expected 2051"),
        ("shape", r"announces the shape (60001, 28, 28); expected (60000, 28, 28)"),
        ("cut gzip", "cannot be read (Compressed file ended before the end-of-stream marker was reached)"),
        ("other", "expected 6bbc9ace898e44ae57da46a324031adb, the original"),
        ("no folder", "is not a folder"),
    ],
)
def test_idx_files_that_are_not_right_are_told_in_one_line(
    inside: Any, tmp_path: Path, damage: str, message: str
) -> None:
    source, out = tmp_path / "idx", tmp_path / "out"
    if damage != "no folder":
        idx_files(source)
        path = source / "train-images-idx3-ubyte"
        data = path.read_bytes()
        path.unlink()
        if damage == "cut gzip":
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(data)[:1000])
        elif damage != "missing":
            changed = {"cut": data[:40_000], "magic": b"\0\0\x08\x04" + data[4:]}
            changed["shape"] = data[:4] + (60_001).to_bytes(4, "big") + data[8:]
            path.write_bytes(changed.get(damage, data))
    line = the_error(inside("data", "build", "mnist", "--source", source, *SMALL, "--out", out))
    assert message in line
    assert "--source optdigits" in line
    assert not out.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--codec", "jpeg"],
        ["--overlap", "mix"],
        ["--clips", "many"],
        ["--nothing"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_names_the_option(inside: Any, tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "out"
    code, _, stderr = inside("data", "build", "mnist", "--source", "optdigits", "--out", out, *words)
    assert code == 2
    assert words[0] in stderr.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "least"),
    [("--clips 0", 1), ("--test-clips -1", 0), ("--frames 0", 1), ("--seed -1", 0), ("--workers 0", 1)],
)
def test_a_number_that_is_not_allowed_is_repeated_and_nothing_is_written(
    inside: Any, tmp_path: Path, words: str, least: int
) -> None:
    out = tmp_path / "out"
    line = the_error(inside("data", "build", "mnist", "--source", "optdigits", "--out", out, *words.split()))
    assert line == f"drnet: error: {words[2:]} is not allowed; it must be at least {least}"
    assert not out.exists()


def test_a_command_without_its_folder_is_wrong_usage(inside: Any) -> None:
    for command in (["build", "mnist"], ["info"], ["verify"], ["preview"]):
        assert inside("data", *command)[0] == 2


def test_a_size_that_is_not_allowed_is_told(inside: Any, tmp_path: Path) -> None:
    line = the_error(inside("data", "build", "mnist", "--source", "optdigits", "--size", "20", "--out", tmp_path / "x"))
    assert "size 20 is not allowed; it must be a multiple of 16" in line


def test_a_folder_of_other_things_is_refused(inside: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch")
    line = the_error(inside("data", "build", "mnist", "--source", "optdigits", *SMALL, "--out", tmp_path))
    assert "holds other files (thesis.txt); choose an empty or new folder" in line
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_as_out_is_refused(inside: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for more in ([], ["--dry-run"]):
        words = ["data", "build", "mnist", "--source", "optdigits", *SMALL, "--out", tmp_path / "file", *more]
        assert str(tmp_path / "file") in the_error(inside(*words))


@pytest.mark.parametrize("command", ["info", "verify"])
@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_is_no_data_set_is_told(inside: Any, tmp_path: Path, command: str, made: bool) -> None:
    folder = tmp_path / "x"
    if made:
        folder.mkdir()
    said = "not a data set built by drnet" if made else "no such folder"
    assert said in the_error(inside("data", command, folder))


def test_a_dry_run_counts_the_shards_that_are_there(inside: Any, tmp_path: Path) -> None:
    words = ["data", "build", "mnist", "--source", "optdigits", *SMALL, "--out", tmp_path / "x"]
    assert inside(*words)[0] == 0
    (tmp_path / "x" / "test-000000.tar").unlink()
    assert inside(*words, "--dry-run")[1].startswith("would write 1 of 4 shards and keep 3")


def test_info_tells_what_is_there_and_json_for_programs(inside: Any, folder: Path) -> None:
    code, out, _ = inside("data", "info", folder)
    assert code == 0
    for text in (
        "frames: 16x16x3 uint8, codec raw",
        "static category of 10: digit_red, digit_green",
        "static number that only names (id): index_red, index_green",
        "split by file; content by content",
        "train items: 6 written",
        "licence: CC BY 4.0",
        "note: images are 8x8",
    ):
        assert text in out
    code, out, _ = inside("data", "info", folder, "--json")
    assert json.loads(out)["splits"]["train"]["clips"] == 6


def test_verify_lists_each_problem_and_ends_with_1(inside: Any, folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / "train-000001.tar"
    data = bytearray(path.read_bytes())
    data[800] ^= 1
    path.write_bytes(data)
    (copy / "train-000002.tar").unlink()
    code, out, err = inside("data", "verify", copy)
    assert code == 1
    assert "Traceback" not in err
    assert f"{path}: its SHA-256 differs" in out
    assert "clip train-00000002: frame 1 is damaged" in out
    assert "train-000002.tar: the shard is missing; run the build command again" in out
    assert out.splitlines()[-1] == "4 shards, 5 clips checked: 3 problems"
    code, out, _ = inside("data", "verify", copy, "--json")
    assert code == 1
    assert len(json.loads(out)["problems"]) == 3
    code, out, _ = inside("data", "verify", copy, "--fast")
    assert code == 1
    assert "frame 1" not in out


def test_preview_writes_the_picture_it_names(inside: Any, folder: Path, tmp_path: Path) -> None:
    for name in ("x.png", "x.gif"):
        assert inside("data", "preview", folder, "--out", tmp_path / name)[:2] == (0, f"wrote {tmp_path / name}\n")
        assert (tmp_path / name).stat().st_size > 1000
    assert ".jpg is not supported" in the_error(inside("data", "preview", folder, "--out", tmp_path / "x.jpg"))
    assert inside("data", "preview", folder, "--out", "x.png", "--split", "val")[0] == 2
    pattern = f"{folder}/train-{{000000..000001}}.tar"
    assert inside("data", "preview", pattern, "--out", tmp_path / "part.png")[0] == 0


def test_every_command_has_an_example_in_its_help() -> None:
    for words in (["build", "mnist"], ["info"], ["verify"], ["preview"], ["card"]):
        shown = CliRunner().invoke(app, [*words, "--help"])
        assert shown.exit_code == 0
        assert f"Example: drnet data {' '.join(words)} " in " ".join(shown.output.split())


class Flaky(BouncingDigits):
    """Digits of which one cannot be read, as long as a file is there."""

    trouble: Path

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        """Yield the clip, or fail."""
        if split == "train" and index == 2 and self.trouble.exists():
            raise OSError(5, "Input/output error")
        yield from super().clips(split, index)


def test_items_that_failed_are_told_and_tried_again(
    inside: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flaky, "trouble", tmp_path / "trouble", raising=False)
    monkeypatch.setitem(
        BUILDERS,
        "mnist",  # type: ignore[arg-type]
        f"{Flaky.__module__}:Flaky",
    )
    (tmp_path / "trouble").touch()
    words = ["--source", "optdigits", *SMALL, "--codec", "raw"]
    failed = inside("data", "build", "mnist", *words, "--out", tmp_path / "d")
    assert "1 of 7 items failed" in the_error(failed)
    assert "drnet data retry" in the_error(failed)
    assert "train: 5 clips, 15 frames; items: 1 failed, 5 written" in failed[1]
    assert inside("data", "build", "mnist", *words, "--out", tmp_path / "d", "--max-failures", "20%")[0] == 0
    assert inside("data", "retry", tmp_path / "d", "--source", "optdigits")[0] == 1
    (tmp_path / "trouble").unlink()
    code, out, _ = inside("data", "retry", tmp_path / "d", "--source", "optdigits")
    assert code == 0
    assert "train: 6 clips, 18 frames; items: 6 written" in out
    assert "1 shards written, 3 kept" in out
    assert inside("data", "build", "mnist", *words, "--out", tmp_path / "whole")[0] == 0
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "d").iterdir()} == names
    assert all((tmp_path / "d" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_a_manifest_cannot_name_a_class_to_import(inside: Any, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    manifest = replace(read_manifest(copy), about={**read_manifest(copy).about, "data_set": "os:system"})
    (copy / "manifest.json").write_bytes(manifest.to_bytes())
    assert "data set 'os:system' is none of drnet's own; name its class" in the_error(inside("data", "retry", copy))
