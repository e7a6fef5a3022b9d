"""What each ingredient of prediction is worth: the networks of the accuracy benchmark, asked in other ways.

Nothing is trained. Each network predicts the held-out images as its recipe does, and once more for each setting;
differences are of the same network. Call it again after a stop: what is on record is not predicted again.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy_table import METRICS, markdown, short
from records import folder_of

from cellseg.command_line import user_errors_in_one_line  # says, before torch starts its threads, how they wait
from cellseg.data_folder import require_data
from cellseg.whole_files import write_whole

HERE = Path(__file__).parent / "accuracy"
BUDGET = "15 min"
BASE, CALIBRATED, TOGETHER = "as the recipe has it", "calibrated", "the networks of all seeds together"
SETTINGS: dict[str, Mapping[str, Any]] = {
    BASE: {},
    "rescoring off": {"rescore": False},
    "views 2": {"views": 2},
    "views 4": {"views": 4},
    "views 8": {"views": 8},
    "zooms 1, 1.25": {"zooms": (1.0, 1.25)},
    "zooms .8, 1": {"zooms": (0.8, 1.0)},
    "zooms 1, 1.25, views 8": {"zooms": (1.0, 1.25), "views": 8},
    "score threshold .01": {"score_threshold": 0.01},
    "score threshold .05": {"score_threshold": 0.05},
    "score threshold .1": {"score_threshold": 0.1},
    "box NMS .4": {"box_nms": 0.4},
    "box NMS .4, score threshold .01": {"box_nms": 0.4, "score_threshold": 0.01},
    "box NMS .5": {"box_nms": 0.5},
    "box NMS .6": {"box_nms": 0.6},
    "mask threshold .4": {"mask_threshold": 0.4},
    "mask threshold .6": {"mask_threshold": 0.6},
    "pq threshold .3": {"pq_threshold": 0.3},
    "pq threshold .4": {"pq_threshold": 0.4},
    "pq threshold .5": {"pq_threshold": 0.5},
    "proposals 1000": {"proposals": 1000},
    CALIBRATED: {},
    TOGETHER: {},
}
"""fields of PredictConfig that each setting changes

Scores of images that were calibrated apart are in no order: the gain of `calibrated`, each image by what was fitted to
the others, is the mean of the gains in the figures of single images.
"""


@dataclass(frozen=True)
class Answer:
    """The figures of one setting and one network."""

    setting: str
    seed: int
    """of the network; -1 where those of all seeds predict together"""
    network: str
    """digest of its checkpoint, and of the setting's fields"""
    metrics: Mapping[str, float]
    checkpoints: tuple[str, ...] = ()
    """digest of each network's checkpoint; empty in records that do not tell"""


@user_errors_in_one_line
def main() -> int:
    """Predict what is not on record, print."""
    options = parsed()
    trained = options.out / f"{options.data.resolve().stem}.json"
    budget = "" if options.budget == BUDGET else f"-{options.budget.replace(' ', '-')}"
    split = f"-split{options.split_seed}" if options.split_seed else ""
    file = trained.with_name(f"{trained.stem}-{options.recipe.replace('/', '-')}{budget}{split}-inference.json")
    if not options.only_report:
        require_data(options.data)
        paths = {
            seed: folder_of(trained, options.recipe, options.budget, seed, options.split_seed) / "last.pt"
            for seed in options.seeds
        }
        if missing := [path for path in paths.values() if not path.exists()]:
            raise FileNotFoundError(f"{missing[0]}: no such network; train it with benchmarks/accuracy.py")
        answer_all(options, paths, file)
    print(report(read(file), options.settings))
    return 0


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="best-cpu", help="one of ours that benchmarks/accuracy.py has trained")
    parser.add_argument("--budget", default=BUDGET, help="that it was trained for, as its folder is named")
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder with train/, or a COCO json file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="SEED")
    parser.add_argument("--split-seed", type=int, default=0, help="which images were held out")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS, metavar="SETTING")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--out", type=Path, default=HERE, help="where the answers and runs/ lie")
    parser.add_argument("--only-report", action="store_true", help="print what is on record and predict nothing")
    return parser.parse_args()


def answer_all(options: argparse.Namespace, paths: Mapping[int, Path], file: Path) -> None:
    """Put every missing answer on record: setting by setting, each for all networks."""
    from contestants import contestant

    from cellseg.checkpoint import load_model
    from cellseg.config import PredictConfig
    from cellseg.config_fields import replaced
    from cellseg.device import device_of
    from cellseg.ensemble import Ensemble
    from cellseg.evaluate import score
    from cellseg.out_of_fold import judge
    from cellseg.predict import predict

    prepared = contestant(options.recipe, options.data, options.device, options.split_seed).prepared
    truth = prepared.data.truth(prepared.validation)
    loaded = {seed: load_model(path, device_of(options.device)) for seed, path in paths.items()}
    configs = {seed: checkpoint.config for seed, (_, checkpoint) in loaded.items()}
    for seed, (_, checkpoint) in loaded.items():
        if checkpoint.epoch < configs[seed].train.epochs:
            raise ValueError(
                f"{paths[seed]}: trained for {checkpoint.epoch} of {configs[seed].train.epochs} epochs; go on with it "
                f"by benchmarks/accuracy.py"
            )
    known = {(each.setting, each.seed, each.network) for each in read(file)}

    def point(setting: str, seed: int) -> PredictConfig:
        changes = {f"predict.{field}": value for field, value in SETTINGS[setting].items()}
        return replaced(configs[seed], changes).predict

    def asked(setting: str, seed: int) -> list[dict[str, Any]]:
        if setting == TOGETHER:
            points = tuple(config.predict for config in configs.values())
            model: Any = Ensemble(tuple(network for network, _ in loaded.values()), points)
            return predict(model, prepared.data.identified(prepared.validation), points[0])
        return predict(loaded[seed][0], prepared.data.identified(prepared.validation), point(setting, seed))

    def figures(setting: str, seed: int) -> Mapping[str, float]:
        results, pq_threshold = asked(setting, seed), point(setting, max(seed, min(paths))).pq_threshold
        if setting != CALIBRATED:
            return score(truth, results, pq_threshold).metrics
        images = [image["id"] for image in truth["images"]]
        folds = [[each for each in results if each["image_id"] == image] for image in images]
        learnt = judge(truth, folds, [{image} for image in images], pq_threshold)
        more = {name: learnt.calibrated_mean[name] - plain for name, plain in learnt.plain_mean.items()}
        return {name: plain + more[name] for name, plain in learnt.plain.metrics.items()}

    for setting in options.settings:
        seeds = [-1] if setting == TOGETHER else list(paths)
        for seed in seeds:
            asked_of = list(paths.values()) if seed < 0 else [paths[seed]]
            network = digest(asked_of, SETTINGS[setting])
            if (setting, seed, network) not in known:
                metrics = figures(setting, seed)
                checkpoints = tuple(digest([path], SETTINGS[BASE]) for path in asked_of)
                add(Answer(setting, seed, network, metrics, checkpoints), file)
                print(f"{setting}, seed {seed}: AP50 {metrics['AP50']:.3f}", flush=True)


def digest(paths: Sequence[Path], fields: Mapping[str, Any]) -> str:
    """16 hex digits of checkpoints and a setting's fields."""
    made = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8)
    for path in paths:
        made.update(path.read_bytes())
    return made.hexdigest()


def read(file: Path) -> list[Answer]:
    """The answers on record."""
    if not file.exists():
        return []
    try:
        answers = [Answer(**each) for each in json.loads(file.read_text())]
        return [replace(each, checkpoints=tuple(each.checkpoints)) for each in answers]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: expected answers of this version, got {error}; move the file away") from error


def add(answer: Answer, file: Path) -> None:
    """Write an answer beside those on record, in place of an older one of its setting and seed."""
    others = [each for each in read(file) if (each.setting, each.seed) != (answer.setting, answer.seed)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(json.dumps([asdict(each) for each in [*others, answer]], indent=1) + "\n", file)


def report(answers: Sequence[Answer], settings: Sequence[str]) -> str:
    """A row a setting: the means over the seeds, and how far AP50 is above the recipe's own, with its range.

    Answers of networks that were not asked as the recipe has it are left out, and named.
    """
    bases = [each for each in answers if each.setting == BASE]
    lines, left_out = [], []
    for name in settings:
        found = [(each, own_of(each, bases)) for each in answers if each.setting == name]
        if compared := [(each, own) for each, own in found if own]:
            means = [short(mean(each.metrics[metric] for each, _ in compared)) for metric in METRICS]
            gains = [[gain(each, own, metric) for each, own in compared] for metric in ("AP50", "AP50_uncapped")]
            lines.append([name, *means, *([""] * 2 if name == BASE else map(signed, gains))])
        left_out += [f"{name} (seed {each.seed})" for each, own in found if not own]
    head = ["setting", *(each.replace("_", " ") for each in METRICS), "AP50 more", "AP50 uncapped more"]
    parts = [markdown(head, lines)] if lines else []
    if left_out:
        parts.append(f'left out, as the same networks were not asked "{BASE}": {", ".join(left_out)}')
    return "\n\n".join(parts) or "no answer on record"


def own_of(answer: Answer, bases: Sequence[Answer]) -> list[Answer]:
    """The answers, among those as the recipe has it, of the networks of an answer; none unless of each of them."""
    of_seeds = [base for base in bases if answer.seed in (base.seed, -1)]
    if not answer.checkpoints:
        return [] if any(base.checkpoints for base in of_seeds) else of_seeds
    own = [base for base in of_seeds if base.network in answer.checkpoints]  # without fields it is the checkpoint's
    return own if len(own) == len(answer.checkpoints) else []


def gain(answer: Answer, own: Sequence[Answer], metric: str) -> float:
    """How far an answer is above the mean of the recipe's own."""
    return answer.metrics[metric] - mean(each.metrics[metric] for each in own)


def signed(gains: Sequence[float]) -> str:
    """Mean and range of differences; noise where they do not agree on the sign."""
    low, high = min(gains), max(gains)
    verdict = "" if low > 0 or high < 0 else ", noise"
    return f"{mean(gains):+.3f} ({low:+.3f} to {high:+.3f}){verdict}"


if __name__ == "__main__":
    main()
