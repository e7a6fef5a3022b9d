"""A study in pictures; those that need more trials than there are, are left out."""

import warnings
from typing import TYPE_CHECKING, cast

import optuna
from optuna.trial import TrialState
from optuna.visualization import matplotlib as charts
from study_outcome import FEWEST_RANKED, Outcome, at_one_epoch, evaluator_of

from cellseg.plots import DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figures_of(study: optuna.Study, outcome: Outcome) -> dict[str, "Figure"]:
    """History, AP over time, recall against AP, parallel coordinates, slices, importances."""
    from matplotlib import rc_context, use

    use("Agg")  # no window
    figures = {"recall_against_ap": recall_against_ap(outcome), "ap_over_time": ap_over_time(outcome)}
    with warnings.catch_warnings(), rc_context():  # Optuna's charts change the style of all later ones
        warnings.simplefilter("ignore")  # experimental charts
        if outcome.ended(TrialState.COMPLETE):
            figures["history"] = _sized(charts.plot_optimization_history(study, target_name="AP50"))
            figures["parallel_coordinates"] = _sized(charts.plot_parallel_coordinate(study, target_name="AP50"), 12)
            figures["slices"] = _sized(charts.plot_slice(study, target_name="AP50"), 18)
        levelled, _ = at_one_epoch(outcome)
        if len(levelled.trials) >= FEWEST_RANKED:
            axes = charts.plot_param_importances(levelled, evaluator=evaluator_of(levelled), target_name="AP50")
            figures["importances"] = _sized(axes)
    return figures


def ap_over_time(outcome: Outcome) -> "Figure":
    """AP50 after each epoch, a line a trial; stopped trials are dashed, the best ones named."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _blank()
    ranked = sorted(outcome.trials, key=lambda trial: -(trial.value or 0.0))
    named = {trial.number for trial in ranked[:5] if trial.intermediate_values}
    for trial in outcome.trials:
        steps = sorted(trial.intermediate_values)
        style = "-" if trial.state == TrialState.COMPLETE else "--"
        label = f"trial {trial.number}" if trial.number in named else None
        width, color = (1.8, None) if label else (0.9, "0.65")
        values = [trial.intermediate_values[step] for step in steps]
        axes.plot(steps, values, style, marker=".", linewidth=width, color=color, label=label)
    axes.set(xlabel="epoch", ylabel="AP50", title="AP50 over time; dashed: stopped")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if named:
        axes.legend()
    return figure


def recall_against_ap(outcome: Outcome) -> "Figure":
    """AP50 of each trained trial over its anchors' best possible recall; refused ones on the axis, known sets named."""
    figure, axes = _blank()
    marks = {TrialState.COMPLETE: ("o", "trained"), TrialState.PRUNED: ("v", "stopped"), None: ("x", "refused")}
    for state, (mark, label) in marks.items():
        shown = [t for t in outcome.trials if "anchor_recall" in t.user_attrs and _shown_as(t) == state]
        recalls = [trial.user_attrs["anchor_recall"] for trial in shown]
        axes.scatter(recalls, [trial.value or 0.0 for trial in shown], marker=mark, label=label)
    for trial in outcome.trials:
        if "anchor_set" in trial.user_attrs and "anchor_recall" in trial.user_attrs:
            place = (trial.user_attrs["anchor_recall"], trial.value or 0.0)
            axes.annotate(trial.user_attrs["anchor_set"], place, xytext=(4, 4), textcoords="offset points")
    axes.set(
        xlabel="best possible recall of the anchors at IoU 0.7", ylabel="AP50", title="Anchors", xlim=(-0.02, 1.02)
    )
    axes.legend()
    return figure


def _shown_as(trial: optuna.trial.FrozenTrial) -> TrialState | None:
    """COMPLETE, PRUNED by the pruner, None for refused; FAIL and the like are not shown."""
    return None if trial.state == TrialState.PRUNED and not trial.intermediate_values else trial.state


def _blank() -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _sized(axes: object, width: float = 8) -> "Figure":
    """The figure of what Optuna drew, so many inches wide; taken from pyplot, which would keep it for ever."""
    from matplotlib import pyplot
    from matplotlib.axes import Axes

    first = axes if isinstance(axes, Axes) else axes.ravel()[0]  # type: ignore[attr-defined]
    figure = cast("Figure", first.figure)
    figure.set_size_inches(width, 5)
    pyplot.close(figure)
    return figure
