"""`cellseg track`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Track:
    """Send what the runs that were begun in this folder could not send while their MLflow server was away.

    It waits in mlruns/unsent/, a file for each run, and arrives as if it had been sent at once.
    """

    action: Annotated[Positional[Literal["sync"]], arg(metavar="sync")]
    """send all that waits"""

    def run(self) -> int:
        """Send, and print how many runs that were."""
        from cellseg import tracking

        sent = tracking.send_waiting(Path.cwd())
        print(f"sent what {sent} runs had left" if sent else "nothing waits to be sent")
        return 0
