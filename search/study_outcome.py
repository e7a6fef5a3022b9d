"""What a study and its finals have brought so far, read once: finalists, the winner, what was saved, what mattered."""

import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median

import optuna
from ladder import finals_of
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from storage import Storage
from study import cut_off, earlier_tries, tries, value_of

from cellseg.winner import Winner

FEWEST_RANKED = 10
"""trained trials, under which no knob is said to matter"""
FEWEST_BEST = 5
"""trials that PED-ANOVA takes for the best ones, at the least; its tenth would be one or two here"""


@dataclass(frozen=True)
class Saved:
    """What was not trained, and how long it would have taken."""

    refused: int
    """trials whose anchors could not win"""
    refused_seconds: float
    recall_ms: float
    """that finding it out took, the median"""
    pruned: int
    """trials that the pruner stopped"""
    pruned_seconds: float


@dataclass(frozen=True)
class Finalist:
    """A setting that was trained in full."""

    candidate: int
    """its trial"""
    values: tuple[float, ...]
    """AP50 of its seeds"""

    @property
    def mean(self) -> float:
        """Of its seeds."""
        return mean(self.values)

    @property
    def range(self) -> float:
        """From the worst seed to the best."""
        return max(self.values) - min(self.values)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({min(self.values):.3f} to {max(self.values):.3f})"


@dataclass(frozen=True)
class Outcome:
    """A study and its finals, read once."""

    name: str
    digest: str
    recipe: str
    trials: Sequence[FrozenTrial]
    """the last try of each"""
    earlier: Sequence[FrozenTrial]
    """tries whose worker died or was stopped"""
    finals: Sequence[FrozenTrial]
    earlier_finals: Sequence[FrozenTrial]
    finalists: Sequence[Finalist]
    """the best first; those with fewer seeds come last"""

    def ended(self, state: TrialState) -> list[FrozenTrial]:
        """Trials in a state."""
        return [trial for trial in self.trials if trial.state == state]

    @property
    def all_tries(self) -> list[FrozenTrial]:
        """Of trials and finals."""
        return [*self.trials, *self.earlier, *self.finals, *self.earlier_finals]

    def seconds(self, trial: FrozenTrial) -> float:
        """How long a trial was trained, in all of its tries."""
        numbers = earlier_tries(trial)
        return seconds_of(trial) + sum(seconds_of(each) for each in self.earlier if each.number in numbers)


def read_outcome(study: optuna.Study, storage: Storage, seeds: Container[int] | None = None) -> Outcome:
    """What a study has brought so far; its finalists by their AP50 with these seeds, by default with all.

    Earlier calls may have trained some with more seeds, which does not make them better.
    """
    last, earlier = tries(study)
    finals: list[FrozenTrial] = []
    earlier_finals: list[FrozenTrial] = []
    for last_rung in finals_of(study, storage):
        every, earlier_finals = tries(last_rung)
        finals = [trial for trial in every if trial.state != TrialState.PRUNED]  # was not wanted any more
    values: dict[int, list[float]] = {}
    for trial in finals:
        if trial.state == TrialState.COMPLETE and (seeds is None or trial.user_attrs["seed"] in seeds):
            values.setdefault(trial.user_attrs["candidate"], []).append(value_of(trial))
    finalists = [Finalist(candidate, tuple(each)) for candidate, each in values.items()]
    finalists.sort(key=lambda each: (-len(each.values), -each.mean))
    attributes = study.user_attrs
    return Outcome(
        name=study.study_name,
        digest=attributes["digest"],
        recipe=attributes["recipe"],
        trials=last,
        earlier=earlier,
        finals=finals,
        earlier_finals=earlier_finals,
        finalists=finalists,
    )


def winner_of(outcome: Outcome) -> Winner:
    """The finalist with the highest mean, or without finals the best trial. Raises ValueError without either."""
    done = {trial.number: trial for trial in outcome.ended(TrialState.COMPLETE)}
    if not done:
        raise ValueError(f"study {outcome.name}: no trial was trained to its end; search on with more --trials")
    named = partial(Winner, study=outcome.name, digest=outcome.digest, recipe=outcome.recipe)
    if not outcome.finalists:
        best = max(done.values(), key=lambda trial: (value_of(trial), -trial.number))
        return named(trial=best.number, value=value_of(best), overrides=best.user_attrs["overrides"])
    first = outcome.finalists[0]
    return named(
        trial=first.candidate,
        value=first.mean,
        overrides=done[first.candidate].user_attrs["overrides"],
        seeds=len(first.values),
        low=min(first.values),
        high=max(first.values),
    )


def saved(outcome: Outcome) -> Saved:
    """Trials that were refused or stopped, and the time to the length of a typical trained one that this saved."""
    trained = [outcome.seconds(trial) for trial in outcome.ended(TrialState.COMPLETE)]
    typical = median(trained) if trained else 0.0
    pruned = outcome.ended(TrialState.PRUNED)
    refused = [trial for trial in pruned if not trial.intermediate_values]
    stopped = [trial for trial in pruned if trial.intermediate_values]
    checks = [trial.user_attrs["recall_ms"] for trial in outcome.trials if "recall_ms" in trial.user_attrs]
    return Saved(
        refused=len(refused),
        refused_seconds=sum(max(0.0, typical - outcome.seconds(trial)) for trial in refused),
        recall_ms=median(checks) if checks else 0.0,
        pruned=len(stopped),
        pruned_seconds=sum(max(0.0, typical - outcome.seconds(trial)) for trial in stopped),
    )


def importances(outcome: Outcome) -> Mapping[str, float]:
    """Share of each parameter, the greatest first (PED-ANOVA); empty where too few trials were trained.

    Of AP50 after the last epoch that all trained trials reached: those that came to their end are few, and alike.
    """
    levelled, _ = at_one_epoch(outcome)
    if len(levelled.trials) < FEWEST_RANKED:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        return get_param_importances(levelled, evaluator=evaluator_of(levelled))


def evaluator_of(levelled: optuna.Study) -> PedAnovaImportanceEvaluator:
    """PED-ANOVA that holds the best tenth, and FEWEST_BEST at the least, against all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        return PedAnovaImportanceEvaluator(target_quantile=max(0.1, FEWEST_BEST / len(levelled.trials)))


def at_one_epoch(outcome: Outcome) -> tuple[optuna.Study, int]:
    """All trained trials with the AP50 that they had after the last epoch that all of them reached, and that epoch."""
    trained = [
        t for t in outcome.trials if t.intermediate_values and t.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    epoch = min((max(trial.intermediate_values) for trial in trained), default=0)
    study = optuna.create_study(direction="maximize")
    for trial in trained:
        if epoch in trial.intermediate_values:
            value = trial.intermediate_values[epoch]
            study.add_trial(optuna.create_trial(value=value, params=trial.params, distributions=trial.distributions))
    return study, epoch


def seconds_of(trial: FrozenTrial) -> float:
    """How long a try took; where it was cut off, up to its last epoch, since its death was found out later."""
    if cut_off(trial):
        return float(trial.user_attrs.get("seconds", 0.0))
    return trial.duration.total_seconds() if trial.duration else 0.0
