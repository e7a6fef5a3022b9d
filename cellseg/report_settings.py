"""What was trained, on what and how, as HTML: the facts, the config, the Plan, and the commands to do it again."""

from typing import Any

from cellseg.command_line import chosen_by_hand
from cellseg.config_fields import flat, to_dict
from cellseg.fingerprint import Plan
from cellseg.markup import Html, element, joined, table
from cellseg.recipes import RECIPES
from cellseg.report import Report
from cellseg.reproduction import UNKNOWN, commands

NOT_RECORDED = "not recorded"
TAUGHT = {
    "epochs of the final network": "folds/epochs",
    "threshold of drawn cells": "out_of_fold/pq_threshold",
    "calibration of scores kept (1) or dropped (0)": "out_of_fold/calibration_kept",
    "AP50 of the scores as they are": "out_of_fold/AP50",
    "AP50 of the scores as they are, mean over folds": "out_of_fold/mean/AP50",
    "AP50 of the scores calibrated on other folds, mean over folds": "out_of_fold/calibrated_mean/AP50",
    "PQ as they are": "out_of_fold/PQ",
    "PQ as they are, mean over folds": "out_of_fold/mean/PQ",
    "PQ calibrated on other folds, mean over folds": "out_of_fold/calibrated_mean/PQ",
}
"""metrics of the parent of folds, by what they are called"""


def facts(report: Report) -> Html:
    """What tells this training from others."""
    run, config = report.run, report.config
    unseen = len(report.unseen.indices) if report.unseen else 0
    held = "each held back once" if report.of_folds else f"{unseen} held back"
    named = {
        "recipe": f"{config.recipe}, {config.model.backbone}, seed {config.seed}",
        **({"AP50": f"{report.unseen.scores.metrics['AP50']:.3f}"} if report.unseen else {}),
        "data": f"{report.recorded.data}: {report.trained_on} images trained on, {held}; digest {report.plan.digest}",
        "trained": f"{run.started:%Y-%m-%d %H:%M} UTC, {_duration(report)}, {run.status.lower()}",
        "code": _code(report),
        "hardware": _hardware(report),
        "MLflow run": run.id,
    }
    pairs = (each for name, value in named.items() for each in (element("dt", name), element("dd", value)))
    return element("dl", joined([*pairs]), class_="facts")


def config(report: Report) -> Html:
    """The fields that depart from the recipe, and all of them folded."""
    recipe, whole = flat(RECIPES[report.config.recipe]()), flat(report.config)
    changed = chosen_by_hand(report.config)
    rows = [(name, _shown(value), _shown(recipe[name], "from the Plan")) for name, value in changed.items()]
    departures = table(f"Where it departs from the recipe {report.config.recipe}", ("field", "here", "recipe"), rows)
    everything = table("Every field", ("field", "value"), [(name, _shown(value)) for name, value in whole.items()])
    folded = element("details", element("summary", f"All {len(whole)} fields"), everything)
    return element("div", departures, folded, class_="settings")


def plan(found: Plan) -> Html:
    """What training took from the data; the images folded."""
    cells = [f"{name} {count:,}" for name, count in zip(found.class_names, found.class_cells, strict=False)]
    fields = {name: _shown(value) for name, value in to_dict(found).items() if name not in ("images", "image_weights")}
    rows = [*(fields | {"class_cells": ", ".join(cells)}).items()]
    weights = zip(found.images, found.image_weights, strict=True)
    shown = [(name, f"{weight:.2f}") for name, weight in sorted(weights, key=lambda each: -each[1])]
    often = table("How often training shows each image; 1 is the mean", ("image", "weight"), shown)
    folded = element("details", element("summary", f"The {len(shown)} training images"), often)
    return element(
        "div", table("What training took from its images", ("field", "value"), rows), folded, class_="settings"
    )


def command(report: Report) -> Html:
    """The commands, and what they need to give the same."""
    changed = report.run.tags.get("git.dirty") == "true"
    warning = "Files of that commit were changed when it was trained: the commit alone does not give the same code."
    parts = [
        element("p", f"In the root of the repository, with the data of digest {report.plan.digest}:"),
        *([element("p", warning, class_="warning")] if changed else []),
        element("pre", element("code", commands(report.recorded))),
    ]
    if report.recorded.in_folds:
        parts.append(element("p", "This trains the network of each fold and the final one.", class_="note"))
    return joined(parts)


def lessons(report: Report) -> Html:
    """What the results of all folds taught; nothing for another run."""
    rows = [(label, f"{report.run.metrics[name]:g}") for label, name in TAUGHT.items() if name in report.run.metrics]
    return table("What the folds taught", ("", "value"), rows) if rows else Html()


def _duration(report: Report) -> str:
    if report.run.ended is None:
        return "not ended"
    minutes, seconds = divmod(round((report.run.ended - report.run.started).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def _code(report: Report) -> str:
    commit = report.recorded.commit
    changed = " with changed files" if report.run.tags.get("git.dirty") == "true" else ""
    return NOT_RECORDED if commit == UNKNOWN else f"commit {commit}{changed}"


def _hardware(report: Report) -> str:
    found = report.run.tags.get("hardware", NOT_RECORDED)
    return found if report.recorded.processes == 1 else f"{report.recorded.processes} processes, each on {found}"


def _shown(value: Any, nothing: str = "none") -> str:
    if value is None:
        return nothing
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
