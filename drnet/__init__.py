"""Disentangled representations of video: data sets, shards, and the DrNet model (Denton & Birodkar 2017)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drnet.pipelines.prediction.predict import predict as predict
    from drnet.pipelines.pretrained import from_pretrained as from_pretrained

__version__ = "0.1.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "datasets").is_dir():  # a checkout: the subpackages lie beside this folder
    __path__.append(str(_HERE.parent))


def __getattr__(name: str) -> object:
    """Give `drnet.from_pretrained` and `drnet.predict` where they are asked for: PyTorch takes a second to import."""
    if name == "from_pretrained":
        from drnet.pipelines.pretrained import from_pretrained

        return from_pretrained
    if name == "predict":
        from drnet.pipelines.prediction.predict import predict

        return predict
    raise AttributeError(f"module 'drnet' has no attribute {name!r}")
