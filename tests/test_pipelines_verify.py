"""Verify: whatever is wrong with a data set is found, with the file and the remedy."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drnet.datasets.contract import Clip, DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.codec import Codec
from drnet.pipelines.files import canonical_json, pretty_json, sha256_of
from drnet.pipelines.manifest import ACCOUNTING, MANIFEST
from drnet.pipelines.shard import ShardWriter, Sidecar, read_sidecar
from drnet.pipelines.verify import verify_data

DATA = BouncingDigits("optdigits", clips=6, test_clips=2, frames=3, size=16)
SHARD = "train-000001.tar"


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("builds")
    for codec in ("raw", "zstd"):
        build(plan_build(DATA, codec, 2), folder / codec)
    return {codec: folder / codec for codec in ("raw", "zstd")}


@pytest.fixture(params=["raw", "zstd"])
def folder(request: pytest.FixtureRequest, builds: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(builds[request.param], tmp_path / request.param))


def problems(folder: Path, full: bool = True) -> list[str]:
    found, _ = verify_data(folder, full)
    assert all("\n" not in line for line in found)
    assert all(line.count("again") == 1 or "delete it" in line for line in found), found
    assert all(line.count(str(folder)) == 1 for line in found), found
    return found


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def rewritten(folder: Path, change: Callable[[list[Clip]], list[Clip]], codec: Codec = "raw") -> None:
    """Replace a shard by another one that agrees with its sidecar and the manifest: only its content is wrong."""
    manifest = json.loads((folder / MANIFEST).read_text())
    clips = [clip for index in (2, 3) for clip in DATA.clips("train", index)]
    file = io.BytesIO()
    writer = ShardWriter(file, codec, {})
    for clip in change(clips):
        writer.append(clip, clip.key)
    sidecar = writer.finish(manifest["build"], SHARD, "train", ())
    (folder / SHARD).write_bytes(file.getvalue())
    settle(folder, sidecar)


def settle(folder: Path, sidecar: Sidecar) -> None:
    """Make sidecar and manifest agree with each other."""
    (folder / SHARD).with_suffix(".json").write_bytes(sidecar.to_bytes())
    manifest = json.loads((folder / MANIFEST).read_text())
    row = next(row for row in manifest["splits"]["train"]["shards"] if row["name"] == SHARD)
    row |= {
        "sha256": sidecar.sha256,
        "bytes": sidecar.size,
        "clips": len(sidecar.samples),
        "frames": sidecar.frames,
    }
    part = manifest["splits"]["train"]
    for name in ("clips", "frames"):
        part[name] = sum(row[name] for row in part["shards"])
    reseal(folder, manifest)


def reseal(folder: Path, manifest: dict[str, Any]) -> None:
    manifest.pop("checksum")
    manifest["checksum"] = sha256_of(canonical_json(manifest))
    (folder / MANIFEST).write_bytes(pretty_json(manifest))


@pytest.mark.parametrize("full", [True, False])
def test_a_fresh_build_has_no_problems(folder: Path, full: bool) -> None:
    assert verify_data(folder, full) == ([], {"shards": 4, "clips": 8})


@pytest.mark.parametrize("name", ["raw", "zstd"])
@pytest.mark.parametrize("file", [SHARD, "train-000001.json", MANIFEST, ACCOUNTING])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_found(builds: dict[str, Path], name: str, file: str, data: st.DataObject) -> None:
    path = builds[name] / file
    whole = path.read_bytes()
    try:
        flip(path, data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7)))
        found = problems(builds[name])
    except DataError as error:
        assert file == MANIFEST
        found = [str(error)]
    finally:
        path.write_bytes(whole)
    assert any(file in line for line in found)


@pytest.mark.parametrize("cut", [0, 1, 512, 700, 1024, 2000, -1, -512, -1024, -1536])
def test_a_cut_shard_is_found(folder: Path, cut: int) -> None:
    path = folder / SHARD
    path.write_bytes(path.read_bytes()[:cut])
    assert any(
        SHARD in line and "delete the shard and run the build command again" in line for line in problems(folder)
    )


@pytest.mark.parametrize("name", [SHARD, "train-000001.json", ACCOUNTING])
def test_a_missing_file_is_found(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert any(name in line and "missing" in line for line in problems(folder))


@pytest.mark.parametrize("name", ["train-000009.tar", "x.txt", ".train-000000.tar.7.tmp"])
def test_an_extra_file_is_found(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"more")
    (line,) = problems(folder)
    assert name in line
    assert "extra file" in line


def test_swapped_shards_are_found(folder: Path) -> None:
    one, two = folder / SHARD, folder / "train-000002.tar"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert {line.split(": ")[0] for line in problems(folder)} == {str(one), str(two)}


def test_a_stale_sidecar_is_found(folder: Path) -> None:
    sidecar = read_sidecar(folder / SHARD)
    (folder / "train-000001.json").write_bytes(replace(sidecar, sha256="0" * 64).to_bytes())
    assert any("stale or swapped sidecar" in line for line in problems(folder))
    (folder / "train-000001.json").write_bytes(replace(sidecar, build="0" * 64).to_bytes())
    assert any("another build" in line for line in problems(folder))


def test_a_sidecar_that_places_a_clip_elsewhere_is_found(builds: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builds["raw"], tmp_path / "copy"))
    sidecar = read_sidecar(folder / SHARD)
    first, second = sidecar.samples
    moved = replace(first, frames=second.frames), replace(second, frames=first.frames)
    settle(folder, replace(sidecar, samples=moved))
    assert any("members are not the sidecar's" in line for line in problems(folder))
    assert any("CRC-32 differs" in line for line in problems(folder))


def test_other_pixels_under_right_hashes_are_found(builds: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builds["raw"], tmp_path / "copy"))
    data = bytearray((folder / SHARD).read_bytes())
    sidecar = read_sidecar(folder / SHARD)
    data[sidecar.samples[0].frames[0] + 200] ^= 1
    (folder / SHARD).write_bytes(data)
    settle(folder, replace(sidecar, sha256=sha256_of(bytes(data))))
    (line,) = problems(folder)
    assert "clip train-00000002: frame 0 is damaged" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda clips: [Clip("train-00000001", clips[0].frames, clips[0].labels)],
            "the key is in train-000000.tar too",
        ),
        (lambda clips: [Clip("a", clips[0].frames, {})], "label 'digit_red' is missing"),
        (lambda clips: [Clip("a", clips[0].frames[:, :8], clips[0].labels)], "frames of (8, 16, 3), not (16, 16, 3)"),
        (lambda clips: [Clip("a", clips[0].frames[:2], clips[0].labels)], "must be a list of 2 values"),
        (lambda clips: [Clip("a", clips[0].frames, {**clips[0].labels, "front": 2})], "must index its 2 names"),
        (
            lambda clips: [Clip("a", clips[0].frames, {k: v for k, v in clips[0].labels.items() if k != "file"})],
            "label 'file', by which the data set is split, is missing",
        ),
    ],
    ids=["key twice", "no labels", "other shape", "other length", "no such category", "no group"],
)
def test_a_clip_that_breaks_a_promise_is_found(
    builds: dict[str, Path], tmp_path: Path, change: Callable[[list[Clip]], list[Clip]], message: str
) -> None:
    folder = Path(shutil.copytree(builds["raw"], tmp_path / "copy"))
    rewritten(folder, change)
    assert any(SHARD in line and message in line for line in problems(folder)), problems(folder)


def test_a_group_in_two_splits_is_found(builds: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builds["raw"], tmp_path / "copy"))
    rewritten(folder, lambda clips: [Clip("a", clips[0].frames, {**clips[0].labels, "file": "optdigits-test"})])
    assert any("file optdigits-test lies in two splits" in line for line in problems(folder))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_plain_file_is_found(builds: dict[str, Path], tmp_path: Path, kind: bytes) -> None:
    folder = Path(shutil.copytree(builds["raw"], tmp_path / "copy"))
    with tarfile.open(folder / SHARD, "a") as archive:
        member = tarfile.TarInfo("train-00000009.npy")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    data = (folder / SHARD).read_bytes()
    settle(folder, replace(read_sidecar(folder / SHARD), sha256=sha256_of(data), size=len(data)))
    assert any("not plain files" in line for line in problems(folder))


def test_a_shard_listed_twice_is_found(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["splits"]["train"]["shards"].append(manifest["splits"]["train"]["shards"][0])
    reseal(folder, manifest)
    assert any("listed twice" in line for line in problems(folder))


def test_an_accounting_that_does_not_add_up_is_found(folder: Path) -> None:
    path = folder / ACCOUNTING
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert any("do not add up" in line for line in problems(folder))


def test_all_problems_are_told_and_not_only_the_first(folder: Path) -> None:
    for name in ("train-000000.tar", "train-000002.tar"):
        flip(folder / name, 600)
    (folder / SHARD).unlink()
    named = {Path(line.split(": ")[0]).name for line in problems(folder)}
    assert named == {"train-000000.tar", SHARD, "train-000002.tar"}


def test_the_build_command_puts_right_what_verify_finds(folder: Path) -> None:
    codec: Any = folder.name
    flip(folder / SHARD, 600)
    (folder / "train-000002.json").unlink()
    flip(folder / ACCOUNTING, 10)
    assert problems(folder)
    build(plan_build(DATA, codec, 2), folder)
    assert problems(folder) == []


def test_without_a_manifest_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="manifest"):
        verify_data(tmp_path)
