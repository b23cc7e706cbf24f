"""Clips that training could not read: each is named and counted, and past a budget training stops. None is replaced."""

from dataclasses import dataclass, field

from drnet.datasets.contract import DataError
from drnet.pipelines.building.failures import Budget
from drnet.pipelines.loader import Batch
from drnet.pipelines.progress import Progress

TOLD = 5  # clips named while it trains


@dataclass
class Skipped:
    """The clips left out of batches so far, each counted once.

    Attributes:
        budget: how many of the clips may be left out.
        clips: in the training split.
        progress: told of the first ones.
        reasons: of each, by number of the clip.
    """

    budget: Budget
    clips: int
    progress: Progress
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Count what a batch left out.

        Raises:
            DataError: where more clips were left out than may be.
        """
        for clip, reason in batch.skipped:
            if clip in self.reasons:
                continue
            self.reasons[clip] = reason
            if len(self.reasons) <= TOLD:
                self.progress.note(f"step {batch.step}: left out: {reason}")
        self.check(len(self.reasons))

    def check(self, count: int) -> None:
        """Raise DataError where that many clips, of this process or of all, are more than may be left out."""
        if not self.budget.allows(count, self.clips):
            first = next((f"the first: {reason}; " for reason in self.reasons.values()), "")
            raise DataError(
                f"{count} of {self.clips} clips could not be read, more than --max-skipped {self.budget} "
                f"allows; {first}`drnet data verify` finds them all"
            )
