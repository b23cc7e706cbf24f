"""Disentangled representations of video: data sets, shards, and the DrNet model (Denton & Birodkar 2017)."""

from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "datasets").is_dir():  # a checkout: the subpackages lie beside this folder
    __path__.append(str(_HERE.parent))
