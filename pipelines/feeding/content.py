"""Which clips of a collection show the same content: a number for each, by the manifest's content key."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.pipelines.files import canonical_json
from drnet.pipelines.shards.codec import REBUILD
from drnet.pipelines.source import Collection

SHIFT = "train with --negatives shift"


class ContentKeys:
    """Numbers that are equal where two clips show the same content (the same object, the same source video).

    A clip's label is read when it is first asked for; its number stays, nine bytes for each clip of the collection.

    Args:
        collection: where clips come from.

    Raises:
        DataError: where no manifest names a content key.
    """

    def __init__(self, collection: Collection) -> None:
        if collection.manifest is None:
            raise DataError(f"shards without a manifest have no content key; {SHIFT}")
        self.collection, self.label = collection, str(collection.manifest.about["content_key"])
        self._numbers = np.zeros(len(collection), np.int64)
        self._known = np.zeros(len(collection), np.bool_)

    def of(self, clips: Iterable[int]) -> NDArray[np.int64]:
        """Return the numbers of some clips, (B,) int64; raises DataError for a clip without the label."""
        return np.array([self._number(int(clip)) for clip in clips], np.int64)

    def _number(self, clip: int) -> int:
        if not self._known[clip]:
            labels = self.collection.labels(clip)
            if self.label not in labels:
                raise DataError(
                    f"clip {self.collection.sample(clip).key} has no {self.label}, the content key; {REBUILD}"
                )
            digest = hashlib.blake2b(canonical_json(labels[self.label]), digest_size=8).digest()
            self._numbers[clip], self._known[clip] = int.from_bytes(digest, signed=True), True
        return int(self._numbers[clip])
