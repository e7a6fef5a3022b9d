"""What a study brought, for people and for final_train.py: trials.csv, finals.csv, best.json, study.md.

AP50 is of the validation images throughout.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from objective import YARDSTICKS
from optuna.trial import FrozenTrial, TrialState
from study import cut_off, earlier_tries, given_up, value_of, why_given_up
from study_outcome import FEWEST_RANKED, Outcome, at_one_epoch, importances, saved, seconds_of, winner_of

from cellseg.whole_files import sweep, write_whole
from cellseg.winner import Winner, write_winner

SHOWN = 0.0005
"""leads that are shown as 0.000 are none"""


def write_report(outcome: Outcome, folder: Path, command: str) -> dict[str, Path]:
    """The files of a study by name: the tables and study.md always, best.json once a trial came to its end."""
    place = folder / outcome.name
    place.mkdir(parents=True, exist_ok=True)
    sweep(place)
    files = {"trials.csv": place / "trials.csv", "finals.csv": place / "finals.csv"}
    write_whole(_csv(trial_rows(outcome)), files["trials.csv"])
    write_whole(_csv(final_rows(outcome)), files["finals.csv"])
    if outcome.ended(TrialState.COMPLETE):
        files["best.json"] = write_winner(winner_of(outcome), folder)
        files["study.md"] = place / "study.md"
        write_whole("\n".join(summary(outcome, command)) + "\n", files["study.md"])
    return files


def trial_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """A row a try: number, state, prune_reason, value, every parameter, seconds, then what else is known."""
    tried = sorted([*outcome.trials, *outcome.earlier], key=lambda trial: trial.number)
    names = sorted({name for trial in tried for name in trial.params})
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "prune_reason": trial.user_attrs.get("prune_reason", ""),
            "value": "" if trial.value is None else round(trial.value, 4),
            **{name: _short(trial.params.get(name, "")) for name in names},
            "seconds": round(seconds_of(trial), 1),
            "anchor_set": trial.user_attrs.get("anchor_set", "sampled"),
            "anchor_recall": _short(trial.user_attrs.get("anchor_recall", "")),
            "fail_reason": _fail_reason(trial, outcome),
            "retry_of": next(iter(earlier_tries(trial)), ""),
            "run_id": trial.user_attrs.get("run_id", ""),
        }
        for trial in tried
    ]


def final_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """A row a try of each candidate and seed."""
    return [
        {
            "candidate": trial.user_attrs["candidate"],
            "seed": trial.user_attrs["seed"],
            "state": trial.state.name,
            "value": "" if trial.value is None else round(trial.value, 4),
            "seconds": round(seconds_of(trial), 1),
            "fail_reason": _fail_reason(trial, outcome),
            "run_id": trial.user_attrs.get("run_id", ""),
        }
        for trial in sorted([*outcome.finals, *outcome.earlier_finals], key=_place)
    ]


def summary(outcome: Outcome, command: str) -> list[str]:
    """Ten lines on what was learned."""
    winner, spared = winner_of(outcome), saved(outcome)
    complete = outcome.ended(TrialState.COMPLETE)
    failed = [trial for trial in outcome.ended(TrialState.FAIL) if given_up(trial) or not cut_off(trial)]
    spent = sum(map(seconds_of, outcome.all_tries))
    cut = len(outcome.earlier) + len(outcome.earlier_finals)
    settings = ", ".join(f"{name.split('.')[1]} {_listed(value)}" for name, value in winner.overrides.items())
    return [
        f"# Study {outcome.name}",
        "",
        f"- **Tried**: {len(outcome.trials)} trials of recipe {outcome.recipe} on data {outcome.digest}: "
        f"{len(complete)} trained to their end, {spared.pruned} stopped by the pruner, {spared.refused} refused for "
        f"their anchors, {len(failed)} failed; then {len(outcome.finals)} trainings in full. "
        f"{_duration(spent)} of training.",
        f"- **Best**: trial {winner.trial}, {winner.score}: {settings}.",
        f"- **Runners-up**: {_runners_up(outcome)}.",
        *(f"- **Against {_yardstick_name(name)}**: {_margin(outcome, winner, name)}." for name in YARDSTICKS),
        f"- **What mattered**: {_importance(outcome)}.",
        f"- **Noise**: {_noise(outcome)}.",
        f"- **Recall check**: refused {spared.refused} trials in {spared.recall_ms:.0f} ms each, which saved about "
        f"{_duration(spared.refused_seconds)} of training; the pruner saved about {_duration(spared.pruned_seconds)}.",
        f"- **Nothing lost**: {cut} tries were cut off and went on as another try.",
        f"- **Again**: `{command}`",
    ]


def _runners_up(outcome: Outcome) -> str:
    others = [f"trial {each.candidate} {each}" for each in outcome.finalists[1:]]
    return ", ".join(others) or "no other setting was trained in full"


def _yardstick_name(name: str) -> str:
    return "torchvision's default anchors" if name == "torchvision" else f"the {name}'s anchors"


def _margin(outcome: Outcome, winner: Winner, name: str) -> str:
    """The winner's lead over a yardstick, both trained in full where they were, else both as trials."""
    yardstick = next((t for t in outcome.trials if t.user_attrs.get("anchor_set") == name), None)
    if yardstick is None or yardstick.state in (TrialState.WAITING, TrialState.RUNNING):
        return "not tried yet"
    if yardstick.number == winner.trial:
        return "this is the best"
    full = {each.candidate: each for each in outcome.finalists}
    if winner.trial in full and yardstick.number in full:
        best, other = full[winner.trial], full[yardstick.number]
        lead = best.mean - other.mean
        if min(len(best.values), len(other.values)) < 2:
            return f"{lead:+.3f} AP50 in full ({other}), one seed each"
        apart = "beyond" if lead > max(best.range, other.range, SHOWN) else "within"
        return f"{lead:+.3f} AP50 in full ({other}), {apart} the range of the seeds"
    if yardstick.state != TrialState.COMPLETE:
        return f"not trained to its end: {yardstick.user_attrs.get('prune_reason') or _fail_reason(yardstick, outcome)}"
    best_trial = next(trial for trial in outcome.trials if trial.number == winner.trial)
    return (
        f"{value_of(best_trial) - value_of(yardstick):+.3f} AP50 as a trial ({value_of(yardstick):.3f}), one seed each"
    )


def _importance(outcome: Outcome) -> str:
    shares = importances(outcome)
    levelled, epoch = at_one_epoch(outcome)
    if not shares:
        return f"too few trials were trained to tell ({len(levelled.trials)}; {FEWEST_RANKED} are needed)"
    listed = [f"{name} {share:.0%}" for name, share in shares.items()]
    half = -(-len(listed) // 2)
    source = f"PED-ANOVA over AP50 after epoch {epoch} of {len(levelled.trials)} trials"
    if max(shares.values()) < min(2 / len(shares), 0.6):  # about even
        return f"no knob stands out: {', '.join(listed)} ({source})"
    return f"{', '.join(listed[:half])}; little: {', '.join(listed[half:])} ({source})"


def _noise(outcome: Outcome) -> str:
    several = [each for each in outcome.finalists if len(each.values) > 1]
    if not several:
        return "not measured; train several settings in full with several seeds (--finalists, --final-seeds)"
    ranges = [each.range for each in several]
    seeds = min(len(each.values) for each in several)
    return (
        f"one setting's AP50 differs by {mean(ranges):.3f} between seeds (mean range of {len(several)} settings, "
        f"{seeds} seeds each; largest {max(ranges):.3f}): smaller leads mean nothing"
    )


def _fail_reason(trial: FrozenTrial, outcome: Outcome) -> str:
    if not cut_off(trial):
        return str(trial.user_attrs.get("fail_reason", ""))
    if given_up(trial):
        return why_given_up(trial)
    how = "stopped" if trial.user_attrs.get("interrupted") else "its worker died"
    went_on = trial in outcome.earlier or trial in outcome.earlier_finals
    return f"{how}; went on as another try" if went_on else f"{how}; the next call goes on with it"


def _place(final: FrozenTrial) -> tuple[int, int, int]:
    """By candidate, seed and try."""
    return final.user_attrs["candidate"], final.user_attrs["seed"], final.number


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _listed(value: Any) -> str:
    return "(" + ", ".join(str(_short(each)) for each in value) + ")" if isinstance(value, list) else str(_short(value))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
