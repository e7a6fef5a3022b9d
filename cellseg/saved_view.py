"""The view `by AP50` of a list of runs, as MLflow's UI keeps a saved view: in a tag of the experiment.

Without it the list shows no figure, and cuts names after 20 letters. The format is the UI's own, of MLflow 3.17; a UI
that keeps its views elsewhere does not show this one.
"""

import base64
import json
import zlib

KEY = "by-AP50"
"""`?viewStateShareKey=by-AP50` in the address of a list of runs opens the view"""
COLUMNS = {
    "attributes.`Run Name`": 330,
    "runDateAndNestInfo": 130,
    "metrics.`best/AP50`": 90,
    "metrics.`best/AP`": 90,
    "metrics.`best/PQ`": 90,
    "params.`train.learning_rate`": 140,
    "tags.`recipe`": 90,
    "tags.`stage`": 90,
    "tags.`pruned`": 160,
    "attributes.`Dataset`": 240,
    "attributes.`Models`": 120,
    "duration": 90,
}
"""of the list from left to right, with their widths in pixels"""


def tag() -> tuple[str, str]:
    """Name and value of the experiment's tag."""
    state = {
        "orderByKey": "metrics.`best/AP50`",
        "orderByAsc": False,
        "selectedColumns": [name for name in COLUMNS if "`" in name],
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": "by AP50", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return f"mlflow.sharedViewState.{KEY}", json.dumps(view)
