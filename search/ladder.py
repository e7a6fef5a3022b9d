"""The rungs of a search: short trials on a subset, pruned on the way; then the best in full, with several seeds."""

from dataclasses import dataclass

import optuna
from claiming import bury, worker_name
from objective import YARDSTICKS, Task, empty_folder, final, objective
from optuna.trial import FrozenTrial, TrialState
from storage import Storage
from study import cut_off, queue_first, tries, value_of
from workers import Stop, work


@dataclass(frozen=True)
class Finals:
    """Which settings are trained in full, and how often."""

    candidates: int
    """the best so many trials; with 0 there are no finals"""
    seeds: int
    yardsticks: bool
    """the yardsticks as well, whatever their rank"""

    def seeds_from(self, first: int) -> range:
        """The seeds, of which the first is the config's; none without finals."""
        return range(first, first + self.seeds) if self.candidates else range(0)


def climb(study: optuna.Study, storage: Storage, shared: Task, trials: int, finals: Finals, stop: Stop) -> None:
    """Run this worker's share of a study that shall have so many trials, then of its finals.

    Raises KeyboardInterrupt when stopped, ValueError where trial after trial fails.
    """
    seed = shared.whole.config.seed
    work(
        *(study, storage, trials, seed, lambda trial: objective(trial, shared), stop),
        fill=lambda study: queue_first(study, shared.prepared, shared.space),
        ended=lambda trial: empty_folder(trial, shared),
    )
    _empty_folders(study, shared)
    if not finals.candidates:
        return
    last_rung = open_finals(study, storage, finals, seed)
    wanted = {(trial.number, each) for trial in candidates(study, finals) for each in finals.seeds_from(seed)}
    work(
        *(last_rung, storage, len(tries(last_rung)[0]), seed, lambda trial: final(trial, shared, wanted), stop),
        ended=lambda trial: empty_folder(trial, shared),
    )
    _empty_folders(last_rung, shared)


def _empty_folders(study: optuna.Study, shared: Task) -> None:
    """Of all trials that have ended: a worker may have died when it had told the end, before it emptied the folder."""
    for trial in tries(study)[0]:
        if trial.state.is_finished() and not cut_off(trial):
            empty_folder(trial, shared)


def bury_trial(study: optuna.Study, storage: Storage, process: int, death: str) -> bool:
    """Whether a dead process of this machine had a trial or a final, which is then queued again."""
    rungs = [study, *finals_of(study, storage)]
    return any(bury(each, storage, worker_name(process), death) for each in rungs)


def finals_of(study: optuna.Study, storage: Storage) -> list[optuna.Study]:
    """The study of a study's finals, where there is one yet."""
    there = finals_name(study) in optuna.get_all_study_names(storage.backend)
    return [optuna.load_study(study_name=finals_name(study), storage=storage.backend)] if there else []


def open_finals(study: optuna.Study, storage: Storage, finals: Finals, first_seed: int) -> optuna.Study:
    """The study of a study's finals: one trial for each candidate and seed, added where they are not there yet."""
    with storage.locked():
        opened = optuna.create_study(
            study_name=finals_name(study),
            storage=storage.backend,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.NopPruner(),
        )
        if "id" not in opened.user_attrs:
            opened.set_user_attr("id", study.user_attrs["id"])
        kept = (trial for trial in tries(opened)[0] if trial.state != TrialState.PRUNED)  # was not wanted then
        there = {(trial.user_attrs["candidate"], trial.user_attrs["seed"]) for trial in kept}
        for seed in finals.seeds_from(first_seed):  # a seed of all first: an early end is a fair one
            for trial in candidates(study, finals):
                place = {"candidate": trial.number, "seed": seed}
                if (trial.number, seed) not in there:
                    opened.enqueue_trial(place, user_attrs={**place, "overrides": trial.user_attrs["overrides"]})
    return opened


def finals_name(study: optuna.Study) -> str:
    """The name of the study that holds a study's finals; a study of the same name that was deleted had others."""
    return f"{study.study_name} finals {study.user_attrs['id']}"


def candidates(study: optuna.Study, finals: Finals) -> list[FrozenTrial]:
    """The best trials that came to their end, and where they are wanted the yardsticks, the best first."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(done, key=lambda trial: (-value_of(trial), trial.number))
    yardsticks = [t for t in ranked if finals.yardsticks and t.user_attrs.get("anchor_set") in YARDSTICKS]
    best = ranked[: finals.candidates]
    return best + [trial for trial in yardsticks if trial not in best]
