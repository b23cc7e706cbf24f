"""Options that several commands share, with one meaning."""

from typing import Annotated

import typer

Checkpoint = Annotated[
    str, typer.Option(metavar="last|best|STEP", help="Of RUN; best: the lowest error of held-out frames.")
]
