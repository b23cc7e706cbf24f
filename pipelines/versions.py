"""The versions that numbers may depend on, for what is written beside them."""

import importlib.metadata
import platform

from drnet import __version__


def versions(*names: str) -> dict[str, str]:
    """Return the versions of drnet and of some packages as they are installed; `python` is the interpreter's."""
    found = {"drnet": __version__}
    for name in names:
        found[name] = platform.python_version() if name == "python" else importlib.metadata.version(name)
    return found
