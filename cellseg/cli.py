"""Find the cells of histology images, and what leads there."""

from collections.abc import Callable
from typing import Any

import tyro

from cellseg.command_line import user_errors_in_one_line
from cellseg.commands.convert import Convert
from cellseg.commands.export import Export
from cellseg.commands.inspect import Inspect
from cellseg.commands.lint import Lint
from cellseg.commands.predict import Predict
from cellseg.commands.report import Report
from cellseg.commands.sample import Sample
from cellseg.commands.score import Score
from cellseg.commands.track import Track
from cellseg.wrong_options import parsed

COMMANDS: dict[str, Callable[..., Any]] = {
    "sample": Sample,
    "convert": Convert,
    "inspect": Inspect,
    "predict": Predict,
    "report": Report,
    "score": Score,
    "lint": Lint,
    "export": Export,
    "track": Track,
}


@user_errors_in_one_line
def main() -> int:
    """Run the command that the arguments name."""
    chosen = parsed(lambda: tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="cellseg", description=__doc__))
    code: int = chosen.run()
    return code


if __name__ == "__main__":
    main()
