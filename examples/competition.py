"""From the competition's data to a submission: a recipe with changes of your own, one training, one zip.

python examples/competition.py DATA [field=value …], such as train.epochs=2 model.backbone=resnet50
"""

import sys
from ast import literal_eval
from pathlib import Path

from cellseg.checkpoint import load_model
from cellseg.config_fields import replaced
from cellseg.dataset import test_images
from cellseg.device import device_of
from cellseg.experiment import prepare, train_tracked
from cellseg.export import write_submission
from cellseg.images import read_image
from cellseg.predict import predict
from cellseg.recipes import demo
from cellseg.run_names import run_name


def main(data: Path, *changes: str) -> None:
    """Train on data/train, tracked in MLflow, and write submission.zip for data/test_release."""
    fields = dict(each.split("=", 1) for each in changes)
    config = replaced(demo(), {name: value_of(text) for name, text in fields.items()})
    prepared = prepare(config, data)
    trained = train_tracked(prepared, experiment="example", name=run_name("example", prepared.config))
    print(f"validation AP50 {trained.metrics.get('best/AP50', float('nan')):.3f}, run {trained.run_id}")

    model, checkpoint = load_model(trained.best, device_of(config.device))
    images = test_images(data)
    order = checkpoint.plan.channel_order
    pixels = ((each.image_id, read_image(each.path, order)) for each in images)
    results = predict(model, pixels, checkpoint.config.predict)
    listed = [
        {"file_name": each.file_name, "id": each.image_id, "height": each.size_hw[0], "width": each.size_hw[1]}
        for each in images
    ]
    summary = write_submission(results, listed, Path("submission.zip"))
    print(f"submission.zip: {summary.total} cells in {len(images)} images")


def value_of(text: str) -> object:
    """A number, a tuple or a truth value, or else the text itself."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
