"""A report -> one HTML page that needs no other file: what a reader wants first stands first."""

from collections.abc import Sequence
from importlib.resources import files

from cellseg import report_plots as plots
from cellseg import report_results as results
from cellseg import report_settings as settings
from cellseg.markup import Html, beside, element, joined, picture
from cellseg.report import Report

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""nothing is loaded and nothing runs, whatever images and classes are called"""
Section = tuple[str, str, Html]
"""id, heading, content"""


def page(report: Report) -> str:
    """The page, whole."""
    shown = [each for each in _sections(report) if each[2]]
    links = [element("a", heading, href=f"#{name}") for name, heading, _ in shown]
    head = [
        element("h1", report.run.name),
        settings.facts(report),
        element("p", report.remark),
        element("nav", *links, aria_label="contents"),
    ]
    sections = [element("section", element("h2", heading), content, id=name) for name, heading, content in shown]
    return f"<!DOCTYPE html>\n{_document(report.run.name, [element('header', *head), element('main', *sections)])}\n"


def _sections(report: Report) -> list[Section]:
    unseen = report.unseen
    curves = ("curves", "Curves", _curves(report))
    about = [
        ("config", "Config", settings.config(report)),
        ("plan", "Plan", settings.plan(report.plan)),
        ("command", "To train it again", settings.command(report)),
    ]
    if unseen is None:
        return [curves, *about]
    return [
        ("figures", "At a glance", joined([results.glance(unseen), settings.lessons(report)])),
        curves,
        ("classes", "Classes", results.classes(unseen)),
        ("confusion", "Confusion between classes", results.confusion(unseen)),
        ("sizes", "Recall by size of the cell", results.sizes(unseen)),
        ("reliability", "Reliability of scores", results.reliability(unseen)),
        ("images", "Best and worst images", results.images(unseen)),
        *about,
    ]


def _curves(report: Report) -> Html:
    """Losses by step, and the figures of validations; nothing where neither was logged."""
    shown = []
    if report.losses:
        ends = (f"{name} {each[min(each)]:.3f} to {each[max(each)]:.3f}" for name, each in report.losses.items())
        figure = plots.svg(plots.curves, report.losses, "loss", "step")
        shown.append(picture(figure, f"Losses from the first step to the last: {', '.join(ends)}"))
    if report.figures:
        best = (f"{name} {max(each.values()):.3f}" for name, each in report.figures.items())
        figure = plots.svg(plots.curves, report.figures, "average precision", "epoch" if report.of_folds else "step")
        shown.append(picture(figure, f"Validations; the highest: {', '.join(best)}"))
    return beside(*shown) if shown else Html()


def _document(title: str, body: Sequence[Html]) -> Html:
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{title} · cellseg report"),
        element("style", Html(files("cellseg").joinpath("report.css").read_text(encoding="utf-8"))),
    ]
    return element("html", element("head", joined(head)), element("body", joined(body)), lang="en")
