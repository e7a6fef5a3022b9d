"""What was found on unseen images, as HTML: figures, curves, confusion, recall, reliability, pictures."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np

from cellseg import report_plots as plots
from cellseg.colors import COLORS
from cellseg.confusion import confusion_of, recall_by_size
from cellseg.markup import Html, beside, element, joined, picture, table
from cellseg.plots import precision_recall
from cellseg.report import SHOWN, Unseen, best_and_worst
from cellseg.report_pictures import WINDOW, side_by_side

NONE = "–"
APS = ("AP50", "AP", "AP75")
GLANCE = {
    "AP50": "average precision at IoU .5",
    "AP": "mean over IoU .5 to .95",
    "AP75": "at IoU .75",
    "PQ": "panoptic quality",
    "AJI": "aggregated Jaccard index",
    "F1": "of cells, at IoU .5",
}


def glance(unseen: Unseen) -> Html:
    """The figures of all classes."""
    metrics = unseen.scores.metrics
    items = []
    for name, meaning in GLANCE.items():
        uncapped = f"; {metrics[f'{name}_uncapped']:.3f} uncapped" if name in APS else ""
        items.append(
            element("li", name, element("strong", f"{metrics[name]:.3f}"), element("small", meaning + uncapped))
        )
    note = (
        "Mean over the classes that occur, but for AJI. AP counts at most 100 detections of a class an image, uncapped "
        f"all of them; PQ, AJI and F1 take the cells as drawn, those that score {unseen.threshold:.2f} or more."
    )
    return joined([element("ul", *items, class_="glance"), element("p", note, class_="note")])


def classes(unseen: Unseen) -> Html:
    """AP of each class as table and bars, and the precision-recall curves."""
    scores, names = unseen.scores, unseen.data.class_names
    cells = confusion_of(unseen.images, len(names)).sum(axis=1)
    columns = [*APS, *(f"{name}_uncapped" for name in APS), "PQ", "F1"]
    rows = []
    for name, count in zip(names, cells.tolist(), strict=False):
        figures = scores.per_class.get(name, {})
        shown = [f"{figures[column]:.3f}" if column in figures else NONE for column in columns]
        rows.append((name, f"{count:,}", *shown))
    rows.append(("mean", f"{cells[:-1].sum():,}", *(f"{scores.metrics[column]:.3f}" for column in columns)))
    head = ("class", "cells", *(column.replace("_", " ") for column in columns))
    bars = ", ".join(f"{name} {each['AP50']:.3f}" for name, each in scores.per_class.items())
    reached = ", ".join(f"{name} {_reached(curve):.2f}" for name, curve in scores.curves.items())
    return joined(
        [
            table("AP of each class, at 100 and uncapped", head, rows),
            beside(
                picture(plots.svg(plots.class_bars, scores.per_class), f"Bars of AP50 by class: {bars}"),
                picture(plots.svg(precision_recall, scores.curves), f"Precision by recall, which reaches {reached}"),
            ),
        ]
    )


def confusion(unseen: Unseen) -> Html:
    """What the cells of each class were found as."""
    names = unseen.data.class_names
    counts = confusion_of(unseen.images, len(names))
    rows = []
    for place, (name, row) in enumerate(zip((*names, "no cell"), counts.tolist(), strict=True)):
        total = sum(row)
        cells = [_confused(count, total, column == place) for column, count in enumerate(row)]
        cells[-1] = element("td", NONE) if place == len(names) else cells[-1]
        rows.append((name, *cells, f"{total:,}"))
    note = (
        "Down, what a cell is; across, as what it was drawn with an IoU over .5, whatever its class. Missed cells "
        "have a column of their own, false ones the last row. Shares are of a row."
    )
    found = table("Cells by class and by what they were drawn as", ("", *names, "missed", "in all"), rows)
    return joined([element("p", note, class_="note"), found])


def sizes(unseen: Unseen) -> Html:
    """Recall by the size of cells, as figure and table."""
    names = unseen.data.class_names
    bins = recall_by_size(unseen.images, len(names))
    if not bins:
        return element("p", "No cell is annotated in these images.")
    own = names if len(names) <= plots.FEW else ()
    rows = []
    for each in bins:
        total = each.cells.sum()
        of_classes = zip(each.right.tolist(), each.cells.tolist(), strict=True)
        shares = [(each.found.sum(), total), (each.right.sum(), total), *of_classes][: 2 + len(own)]
        shown = (f"{part / whole:.2f}" if whole else NONE for part, whole in shares)
        rows.append((plots.size_range(each), f"{total:,}", *shown))
    alt = "Recall by side of the cell in pixels: " + ", ".join(f"{row[0]}: {row[2]}" for row in rows)
    note = (
        "The side is that of a square as large as a cell's box, in pixels of the image. A cell is found where one was "
        "drawn with an IoU over .5: of any class (bars), or of its own (lines)."
    )
    found = table("Share of cells found, by side", ("side", "cells", "found", "own class", *own), rows)
    figure = picture(plots.svg(plots.recall_by_size, bins, names), alt)
    return joined([element("p", note, class_="note"), beside(figure, found)])


def reliability(unseen: Unseen) -> Html:
    """Whether scores are chances."""
    found = unseen.reliability
    if not len(found):
        return element("p", "Nothing was detected in these images.")
    counts = found[:, 2]
    gap = float((np.abs(found[:, 0] - found[:, 1]) * counts).sum() / counts.sum())
    rows = [(f"{mean:.2f}", f"{precision:.2f}", f"{int(count):,}") for mean, precision, count in found]
    told = f"Score and precision are {gap:.3f} apart in the mean over {int(counts.sum()):,} detections"
    alt = f"{told}: " + ", ".join(f"score {mean}, precision {precision}" for mean, precision, _ in rows)
    numbers = table("Detections by score, ten bins", ("mean score", "precision", "detections"), rows)
    return joined(
        [
            element("p", f"{told}. Where they agree, a score is the chance that the detection is right."),
            beside(picture(plots.svg(plots.reliability, found), alt), numbers),
        ]
    )


def images(unseen: Unseen) -> Html:
    """The best and the worst images by PQ, each with its truth and what was found."""
    best, worst = best_and_worst([each.pq for each in unseen.images])
    parts = [
        element(
            "p", "By the PQ of all classes of an image pooled; a cell of another class is one missed and one false."
        ),
        _key(unseen.data.class_names),
        element("h3", f"The {SHOWN} best" if worst else f"All {len(best)}, best first"),
        element("div", *(_pair(unseen, place) for place in best), class_="pairs"),
    ]
    if worst:
        parts.append(element("h3", f"The {SHOWN} worst, worst first"))
        parts.append(element("div", *(_pair(unseen, place) for place in worst), class_="pairs"))
    return joined(parts)


def _pair(unseen: Unseen, place: int) -> Html:
    """One image: its figures, and two pictures."""
    index, counts = unseen.indices[place], unseen.images[place]
    record, cells = unseen.data.records[index], len(counts.truth_labels)
    results = [result for result in unseen.results if result["image_id"] == record.image_id]
    image = unseen.data.image(index)
    truth, found, (rows, columns) = side_by_side(image, unseen.data.label_maps(index), results, unseen.threshold)
    told = (
        f" PQ {counts.pq:.3f}: of {cells:,} cells {counts.right:,} found, {counts.confused:,} as another class, "
        f"{counts.missed:,} missed; {counts.false:,} false"
    )
    part = f"; rows {rows.start} to {rows.stop} and columns {columns.start} to {columns.stop} are shown"
    told += part if max(image.shape[:2]) > WINDOW else ""
    alts = (f"{record.name}, truth: {cells} cells", f"{record.name}, prediction: {len(counts.drawn_labels)} cells")
    pictures = [picture(content, alt, "image/jpeg") for content, alt in zip((truth, found), alts, strict=True)]
    caption = element("figcaption", element("b", record.name), told)
    return element("figure", caption, element("div", *pictures), class_="pair")


def _key(class_names: Sequence[str]) -> Html:
    """The colours of the outlines."""
    patches = [element("li", "First the truth, then the prediction.")]
    for name, color in zip(class_names, cycle(COLORS), strict=False):
        patch = element("span", style="background:#{:02x}{:02x}{:02x}".format(*color))
        patches.append(element("li", patch, name))
    return element("ul", *patches, class_="key")


def _confused(count: int, total: int, right: bool) -> Html:
    share = count / total if total else 0.0
    color = f"rgb(var(--{'right' if right else 'wrong'}) / {0.5 * share:.2f})"
    shown = element("small", f" {share:.0%}" if count else "")
    return element("td", f"{count:,}", shown, style=f"background:{color}")


def _reached(curve: Mapping[str, Sequence[float]]) -> float:
    """The highest recall of a curve."""
    return max((r for r, p in zip(curve["recall"], curve["precision"], strict=True) if p > 0), default=0.0)
