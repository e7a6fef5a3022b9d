"""Records of the accuracy benchmark -> markdown: mean and range over the seeds, and what sets the rows apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from records import Record

METRICS = ("AP50", "AP", "AP50_uncapped", "AP_uncapped", "PQ")
COMPARED = ("AP50", "AP", "PQ")
OPPONENT, PUBLISHED = "torchvision", "reference"


@dataclass(frozen=True)
class Span:
    """A figure over the seeds."""

    mean: float
    low: float
    high: float

    def meets(self, other: "Span") -> bool:
        """Whether the ranges share a value."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        """Three digits, without the zero before the point."""
        return f"{short(self.mean)} ({short(self.low)} to {short(self.high)})"


def short(value: float) -> str:
    """Three digits after the point.

    >>> short(0.12345), short(-0.5), short(1.0)
    ('.123', '-.500', '1.000')
    """
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def span(values: Sequence[float]) -> Span:
    """Mean and range."""
    return Span(mean(values), min(values), max(values))


def report(records: Sequence[Record], recipes: Sequence[str] = ()) -> str:
    """Tables of the records of each budget and device; of the named recipes, in their order, where any is named."""
    parts = []
    for budget, device, split in dict.fromkeys((each.budget, each.device, each.split) for each in records):
        group = [each for each in records if (each.budget, each.device, each.split) == (budget, device, split)]
        rows = rows_of(group, recipes or list(dict.fromkeys(each.recipe for each in group)))
        if rows:
            title = f"{budget} of training, validation not counted, on {device}, split {split}"
            parts.append(f"{title}\n\n{tables(rows)}")
    return "\n\n".join(parts) or "no finished training"


def rows_of(records: Sequence[Record], recipes: Sequence[str]) -> dict[str, list[Record]]:
    """The records of each row, those of one config of a recipe; but for its last one, the config stands in the name."""
    rows = {}
    for recipe in recipes:
        found = [each for each in records if each.recipe == recipe]
        for config in dict.fromkeys(each.config for each in reversed(found)):
            name = recipe if config == found[-1].config else f"{recipe} (config {config[:8]})"
            rows[name] = [each for each in found if each.config == config]
    return rows


def tables(rows: Mapping[str, Sequence[Record]]) -> str:
    """Figures, AP50 of each class, and comparisons of the rows."""
    comparisons = compared(rows)
    return "\n\n".join([figures(rows), classes(rows), *([comparisons] if comparisons else [])])


def figures(rows: Mapping[str, Sequence[Record]]) -> str:
    """Of each row its size, its schedule, and its METRICS on the held-out images."""
    head = ["recipe", "seeds", "parameters", "steps", *(each.replace("_", " ") for each in METRICS)]
    return markdown(
        head,
        [
            [
                name,
                ", ".join(str(each.seed) for each in sorted(found, key=lambda one: one.seed)),
                f"{found[0].parameters / 1e6:.1f} M",
                " / ".join(str(steps) for steps in sorted({each.steps for each in found})),
                *(str(figure(found, metric)) for metric in METRICS),
            ]
            for name, found in rows.items()
        ],
    )


def classes(rows: Mapping[str, Sequence[Record]]) -> str:
    """AP50 at 100 detections, a column a class."""
    names = list(dict.fromkeys(name for found in rows.values() for each in found for name in each.per_class))
    return markdown(
        ["AP50", *names],
        [[recipe, *(str(_of_class(found, name)) for name in names)] for recipe, found in rows.items()],
    )


def compared(rows: Mapping[str, Sequence[Record]]) -> str:
    """Each row's mean less that of torchvision, and as a multiple of the reference's; empty where neither is there.

    Both with any backbone, as they were trained last.
    """
    every = [each for script in (OPPONENT, PUBLISHED) for each in rows if _script(rows[each]) == script]
    others = [name for name in every if name == rows[name][0].recipe]
    ours = [name for name in rows if name not in every]
    if not others or not ours:
        return ""
    sign = {name: difference if _script(rows[name]) == OPPONENT else ratio for name in others}
    head = [f"{metric.replace('_', ' ')} against {name}" for name in others for metric in COMPARED]
    lines = [
        [
            recipe,
            *(sign[name](figure(rows[recipe], each), figure(rows[name], each)) for name in others for each in COMPARED),
        ]
        for recipe in ours
    ]
    return markdown(["recipe", *head], lines)


def _script(found: Sequence[Record]) -> str:
    """The recipe of a row's records without a backbone: `torchvision` of `torchvision-resnet101`."""
    return found[0].recipe.partition("-resnet")[0]


def difference(ours: Span, theirs: Span) -> str:
    """Of the means, with a sign."""
    sign = "+" if ours.mean >= theirs.mean else ""
    return f"{sign}{short(ours.mean - theirs.mean)}{_doubt(ours, theirs)}"


def ratio(ours: Span, theirs: Span) -> str:
    """Of the means."""
    if not theirs.mean:
        return f"{short(ours.mean)} against 0{_doubt(ours, theirs)}"
    return f"{ours.mean / theirs.mean:.2f} x{_doubt(ours, theirs)}"


def _doubt(ours: Span, theirs: Span) -> str:
    return ", within the seeds' range" if ours.meets(theirs) else ""


def figure(found: Sequence[Record], metric: str) -> Span:
    """A metric over the seeds."""
    return span([each.metrics[metric] for each in found])


def _of_class(found: Sequence[Record], name: str) -> Span:
    return span([each.per_class[name]["AP50"] for each in found])


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))
