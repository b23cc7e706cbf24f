"""Fuzz what reads files of strangers, with coverage as the guide, in one process, for as long as you like.

    pip install atheris
    python tests/fuzz.py shard INPUTS -max_total_time=300

The first word is a target of `test_fuzz.py`: shard, member, sidecar, manifest or accounting. INPUTS is a folder that
collects inputs; further options are libFuzzer's. An input that ends in anything but a result or a DataError, takes more
than 2 GiB or more than 10 seconds stops the run, and is written to the current folder as `crash-*`.
"""

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Run one target."""
    atheris = importlib.import_module("atheris")  # no dependency of the project: nothing else needs it
    with atheris.instrument_imports(include=["drnet"]):
        targets = importlib.import_module("test_fuzz").TARGETS
    if len(sys.argv) < 3 or sys.argv[1] not in targets:
        sys.exit(f"usage: python tests/fuzz.py {'|'.join(targets)} INPUTS [-max_total_time=SECONDS]")
    target, seeds = targets[sys.argv.pop(1)]
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    limits = ["-rss_limit_mb=2048", "-timeout=10", "-max_len=16384", "-len_control=0"]
    atheris.Setup([*sys.argv[:2], *limits, *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
