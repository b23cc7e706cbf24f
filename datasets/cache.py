"""Where drnet keeps what it downloads."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder of drnet: environment variable DRNET_CACHE, else the platform's."""
    import platformdirs  # only here: building from a given folder needs none of it

    chosen = os.environ.get("DRNET_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("drnet")
