"""Carry out the tricks of a test file in a process of little memory: `python tests/little_memory.py test_hostile`.

Reads lines of [name, path], uses each path as `TRICKS` of that file says, and prints how it ended.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ADDRESSES = 1 << 29  # bytes that the process may map beyond what it maps at its start


def resident(line: str) -> int:
    """Return the memory in use (`VmRSS`), or the most that was (`VmHWM`), in bytes; `ru_maxrss` would count the parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{line}:")[2].split()[0])


def carry_out(use: Any, path: Path) -> dict[str, Any]:
    """Use a file: how it ended, in how much time and additional memory."""
    Path("/proc/self/clear_refs").write_text("5")  # the most that was in use is counted anew
    before, began = resident("VmRSS"), time.process_time()
    try:
        use(path)
        ended, message = "accepted", ""
    except BaseException as error:
        ended, message = type(error).__name__, str(error)
    seconds, memory = time.process_time() - began, resident("VmHWM") - before
    return {"ended": ended, "message": message, "seconds": seconds, "memory": memory}


def outcomes_of(module: str, paths: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Carry out the tricks of a test module in a process of little memory; return how each ended, with its path."""
    words = [sys.executable, "-W", "error", __file__, module]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    lines = "\n".join(json.dumps(row) for row in paths.items())
    process = subprocess.run(
        words, input=lines, check=False, capture_output=True, text=True, timeout=120, env=environment
    )
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert process.returncode == 0, (rows[-1:], process.stderr[-2000:])
    return {row["name"]: {**row, "path": paths[row["name"]]} for row in rows}


def check_refused(row: dict[str, Any], words: str, memory: int, seconds: float) -> None:
    """Check that a trick was refused in one line that names its file and says some words, in little memory and time."""
    assert row["ended"] == "DataError", row
    assert row["message"].startswith(row["path"]), row
    assert words in row["message"], row
    assert len(row["message"]) < 400
    assert row["message"].isprintable(), row  # one line, and nothing that steers a terminal
    assert row["memory"] < memory, row
    assert row["seconds"] < seconds, row


def main() -> None:
    """Carry out what standard input names."""
    tricks = importlib.import_module(sys.argv[1]).TRICKS
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESSES, resource.RLIM_INFINITY))
    for line in sys.stdin:
        name, path = json.loads(line)
        print(json.dumps({"name": name, **carry_out(tricks[name][1], Path(path))}), flush=True)


if __name__ == "__main__":
    main()
