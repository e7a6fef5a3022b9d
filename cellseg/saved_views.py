"""Two views of a list of runs, as MLflow's UI keeps saved views: in tags of the experiment.

Without them the list shows no figure, and cuts names after 20 letters. The format is the UI's own, of MLflow 3.17; a UI
that keeps its views elsewhere does not show these.
"""

import base64
import json
import zlib

VIEWS = {"by AP50": "metrics.`best/AP50`", "by study": "attributes.start_time"}
"""what each sorts by, the highest first; trials lie below their study where runs are sorted by time"""
COLUMNS = {
    "attributes.`Run Name`": 330,
    "runDateAndNestInfo": 130,
    "metrics.`best/AP50`": 100,
    "metrics.`best/AP`": 90,
    "metrics.`best/PQ`": 90,
    "params.`train.learning_rate`": 140,
    "tags.`recipe`": 90,
    "tags.`stage`": 90,
    "tags.`pruned`": 160,
    "tags.`registered`": 90,
    "attributes.`Dataset`": 240,
    "duration": 90,
}
"""of the list from left to right, with their widths in pixels"""


def tags() -> dict[str, str]:
    """The tags of an experiment that has the views."""
    return {f"mlflow.sharedViewState.{name.replace(' ', '-')}": _packed(name, key) for name, key in VIEWS.items()}


def _packed(name: str, sorted_by: str) -> str:
    state = {
        "orderByKey": sorted_by,
        "orderByAsc": False,
        "selectedColumns": [column for column in COLUMNS if "`" in column],
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
    }
    deflated = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{deflated}"})
