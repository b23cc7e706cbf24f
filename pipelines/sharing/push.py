"""Put a data set where others can read it: any fsspec URL, or the Hugging Face hub. An interrupted push is continued.

The manifest goes last, so a reader never finds a data set of which a part is missing. What is there already is told by
hash on the hub; elsewhere a shard counts as there when its sidecar, which goes after it, has the right bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import fsspec

from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.files import canonical_json, sha256_of
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.shards.manifest import ACCOUNTING, CARD, MANIFEST, PICTURE, read_manifest
from drnet.pipelines.shards.shard import sidecar_path

HUB = "hf://datasets/"
FILES_A_COMMIT = 50
NO_HUB = "pushing to the Hugging Face hub needs huggingface_hub: pip install huggingface_hub"


class Store(Protocol):
    """A place for a data set's files."""

    def there(self, folder: Path, names: Sequence[str]) -> set[str]:
        """Return which of a folder's files are in the store already, with the right content."""

    def read(self, name: str) -> bytes | None:
        """Return a small file of the store; None where it has none of that name."""

    def put(self, folder: Path, names: Sequence[str]) -> None:
        """Store files, each whole or not at all."""


class FolderStore:
    """A folder behind any fsspec URL (`s3://bucket/name`, `gs://...`, `file:///...`).

    Args:
        url: of the folder.

    Raises:
        DataError: where no installed package knows the URL's protocol.
    """

    def __init__(self, url: str) -> None:
        try:
            self.files, self.root = fsspec.url_to_fs(url.rstrip("/"))
        except (ImportError, ValueError) as error:
            raise DataError(
                f"{url}: cannot be written to ({error}); use hf://datasets/USER/NAME, s3://, gs://"
            ) from None

    def _size(self, name: str) -> int:
        try:
            return int(self.files.info(f"{self.root}/{name}")["size"])
        except FileNotFoundError:
            return -1

    def there(self, folder: Path, names: Sequence[str]) -> set[str]:
        """Compare small files by content; a shard is there if its sidecar is, and its size is right."""
        self.files.invalidate_cache()
        sizes = {name: (folder / name).stat().st_size for name in names}
        right = {name for name in names if self._size(name) == sizes[name]}
        small = {name for name in right if not name.endswith(".tar") and self._same(folder, name)}
        shards = {name for name in right if name.endswith(".tar") and sidecar_path(Path(name)).name in small}
        return small | shards

    def _same(self, folder: Path, name: str) -> bool:
        return bool(self.files.cat_file(f"{self.root}/{name}") == (folder / name).read_bytes())

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None."""
        return None if self._size(name) < 0 else bytes(self.files.cat_file(f"{self.root}/{name}"))

    def put(self, folder: Path, names: Sequence[str]) -> None:
        """Store files one by one; where the place has no whole-object writes, under another name first."""
        self.files.makedirs(self.root, exist_ok=True)
        for name in names:
            local = "file" in (
                self.files.protocol if isinstance(self.files.protocol, tuple) else (self.files.protocol,)
            )
            target = f"{self.root}/{name}"
            self.files.put_file(str(folder / name), f"{target}.part" if local else target)
            if local:
                self.files.mv(f"{target}.part", target)


class HubStore:
    """A data set repository of the Hugging Face hub; it is made where it is missing.

    Args:
        repo: `USER/NAME`.
        api: a `huggingface_hub.HfApi`, or what has its `create_repo`, `list_repo_tree` and `create_commit`.
    """

    def __init__(self, repo: str, api: Any = None) -> None:
        self.repo = repo
        try:
            import huggingface_hub
        except ImportError:
            raise DataError(NO_HUB) from None
        self._add = huggingface_hub.CommitOperationAdd
        self.api = huggingface_hub.HfApi() if api is None else api
        self.api.create_repo(repo, repo_type="dataset", exist_ok=True, private=True)

    def there(self, folder: Path, names: Sequence[str]) -> set[str]:
        """Compare by hash: the hub knows that of every large file, and git's of every small one."""
        found = {entry.path: entry for entry in self.api.list_repo_tree(self.repo, repo_type="dataset")}
        return {name for name in names if name in found and self._same(found[name], folder / name)}

    @staticmethod
    def _same(entry: Any, path: Path) -> bool:
        if getattr(entry, "size", None) != path.stat().st_size:
            return False
        if getattr(entry, "lfs", None) is not None:
            return bool(entry.lfs.sha256 == sha256_file(path))
        data = path.read_bytes()  # a small file: git's own hash
        return bool(entry.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest())

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None."""
        if name not in {entry.path for entry in self.api.list_repo_tree(self.repo, repo_type="dataset")}:
            return None
        return Path(self.api.hf_hub_download(self.repo, name, repo_type="dataset")).read_bytes()

    def put(self, folder: Path, names: Sequence[str]) -> None:
        """Store files in one commit, which is whole or not there."""
        operations = [self._add(path_in_repo=name, path_or_fileobj=folder / name) for name in names]
        self.api.create_commit(self.repo, operations, commit_message=f"Add {names[0]}", repo_type="dataset")


def store_of(target: str) -> Store:
    """Return the store that a target names: `hf://datasets/USER/NAME`, or any other fsspec URL."""
    if target.startswith(HUB):
        return HubStore(target.removeprefix(HUB).strip("/"))
    if "://" not in target:
        raise DataError(
            f"target '{target}' is not allowed; name hf://datasets/USER/NAME, s3://BUCKET/NAME or file:///DIR"
        )
    return FolderStore(target)


def push(folder: Path, store: Store, progress: Progress | None = None) -> dict[str, int]:
    """Copy a data set into a store; continue a push that was interrupted.

    Args:
        folder: of the data set.
        store: from `store_of`.
        progress: told of each file.

    Returns:
        `sent` and `kept`: how many files were copied, and how many were there.

    Raises:
        DataError: where there is no whole data set, or the store holds another one.
        OSError: where the store cannot be reached; what was sent stays, and the next push continues.
    """
    progress = progress or Silent()
    groups = list(push_order(folder))
    names = [name for group in groups for name in group]
    refuse_another(folder, store)
    there = store.there(folder, names)
    progress.start("pushing", len(names), "files", len(there))
    try:
        for group in groups:
            missing = [name for name in group if name not in there]
            for at in range(0, len(missing), FILES_A_COMMIT):
                part = missing[at : at + FILES_A_COMMIT]
                store.put(folder, part)
                progress.advance(len(part))
    finally:
        progress.stop()
    return {"sent": len(names) - len(there), "kept": len(there)}


def refuse_another(folder: Path, store: Store) -> None:
    """Raise DataError where a store holds a whole data set that is another one: the two would be mixed."""
    try:
        found = json.loads(store.read(MANIFEST) or b"{}")
        whole = found.pop("checksum", "") == sha256_of(canonical_json(found))
    except (ValueError, RecursionError, AttributeError):
        return  # a damaged manifest is sent again
    if whole and found.get("build") != read_manifest(folder).build:
        name, build = str(found.get("data_set"))[:40], str(found.get("build"))[:12]
        raise DataError(
            f"the target holds another data set ({name!r}, build {build!r}); push to another URL, or delete it"
        )


def push_order(folder: Path) -> Iterator[list[str]]:
    """Yield a data set's files in the order in which they may appear: each shard and its sidecar, the rest, the manifest."""
    manifest = read_manifest(folder)
    shards = [row.name for rows in manifest.splits.values() for row in rows]
    missing = [name for name in shards if not (folder / name).exists()]
    if missing:
        raise DataError(f"{folder}: missing {missing[0]}; run the build command again before pushing")
    yield [name for shard in shards for name in (shard, sidecar_path(Path(shard)).name)]
    yield [ACCOUNTING, *(name for name in (CARD, PICTURE) if (folder / name).exists())]
    yield [MANIFEST]
