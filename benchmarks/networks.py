"""Several networks, each alone and all together, on the images of a data set that none of them was trained on.

An image was trained on where one of the training had its name. PQ is that of the detections with a score of at least .5
in every row.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from accuracy_table import METRICS, markdown, short

from cellseg.command_line import user_errors_in_one_line  # says, before torch starts its threads, how they wait
from cellseg.data_folder import require_data


@user_errors_in_one_line
def main() -> int:
    """Predict and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder with train/, or a COCO json file")
    parser.add_argument("--views", type=int, choices=(1, 2, 4, 8), default=1, help="that each tile is seen in")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    options = parser.parse_args()
    require_data(options.data)
    print(table(options.checkpoints, options.data, options.views, options.device))
    return 0


def table(paths: Sequence[Path], root: Path, views: int, device: str) -> str:
    """Markdown, a row for each network and one for all. Raises ValueError where all images were trained on."""
    from contest import PQ_THRESHOLD

    from cellseg.checkpoint import Checkpoint, ensemble_of, load_model
    from cellseg.config_fields import replaced
    from cellseg.dataset import open_dataset
    from cellseg.device import device_of
    from cellseg.ensemble import Ensemble
    from cellseg.evaluate import score
    from cellseg.model import CellRCNN
    from cellseg.predict import predict

    alone = [load_model(path, device_of(device)) for path in paths]
    together = [ensemble_of(paths, alone)] if len(paths) > 1 else []
    asked: list[tuple[CellRCNN | Ensemble, Checkpoint]] = [*alone, *together]
    _, first = alone[0]
    data = open_dataset(root, first.config.dataset, len(first.plan.class_names))
    plans = [checkpoint.plan for _, checkpoint in alone]
    seen = [name for plan in plans for name in plan.images]
    unseen = [index for index, record in enumerate(data.records) if not any(_shows(name, record.name) for name in seen)]
    if not unseen:
        raise ValueError(
            f"{root}: each of its {len(data)} images trained one of the networks; leave networks out, or name other "
            "data"
        )
    truth = data.truth(unseen)
    rows = []
    for name, (network, checkpoint) in zip([*map(str, paths), "together"], asked, strict=False):
        point = replaced(checkpoint.config, {"predict.views": views}).predict
        results = predict(network, data.identified(unseen), point)
        metrics = score(truth, results, PQ_THRESHOLD).metrics
        rows.append([name, *(short(metrics[metric]) for metric in METRICS)])
        print(f"{name}: AP50 {short(metrics['AP50'])}", flush=True)
    head = [f"{len(unseen)} images, views {views}", *(metric.replace("_", " ") for metric in METRICS)]
    return "\n" + markdown(head, rows)


def _shows(name: str, image: str) -> bool:
    """Whether something that was trained on is the image, or a crop of it, as cellseg/crops.py names them."""
    return name == image or name.startswith(f"{image} y")


if __name__ == "__main__":
    main()
