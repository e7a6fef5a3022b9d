"""A report made by hand of the four images of squares, and what a reader's browser would make of its page."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

from cellseg.calibration import reliability, scores_of, true_positives
from cellseg.confusion import matched_cells
from cellseg.evaluate import score
from cellseg.fingerprint import apply, fingerprint, plan
from cellseg.markup import VOID
from cellseg.report import Report, Unseen
from cellseg.reproduction import Recorded
from cellseg.run_log import Logged

STARTED = datetime(2026, 11, 25, 21, 17, tzinfo=UTC)


def found_again(truth, missed=0, relabelled=0):
    """The cells of a truth as results with scores .6, .61, …, without the first few; the next few are of class 2."""
    cells = truth["annotations"][missed:]
    keys = ("image_id", "category_id", "bbox", "segmentation")
    results = [{key: cell[key] for key in keys} | {"score": 0.6 + n / 100} for n, cell in enumerate(cells)]
    for result in results[:relabelled]:
        result["category_id"] = 2
    return results


def unseen_of(data, results, indices=(0, 1, 2, 3)):
    """What was found in some images of a data set."""
    truth = data.truth(indices)
    return Unseen(
        data=data,
        indices=indices,
        results=results,
        threshold=0.5,
        scores=score(truth, results),
        images=matched_cells(truth, results, 0.5),
        reliability=reliability(scores_of(results), true_positives(truth, results)),
    )


def report_of(data, config, unseen=None, **changes):
    """A report of a run of two epochs; tags, metrics and name of the run are among the changes."""
    run = Logged(
        id="beef",
        name=changes.pop("name", "final · demo"),
        status="FINISHED",
        started=STARTED,
        ended=STARTED + timedelta(seconds=3725),
        params={},
        tags=changes.pop("tags", {"hardware": "Abacus, 2 threads"}),
        metrics=changes.pop("metrics", {}),
    )
    chosen = plan(data, fingerprint(data, range(len(data))), config)
    whole = apply(config, chosen)
    report = Report(
        run=run,
        config=whole,
        plan=chosen,
        recorded=Recorded(whole, data.root, "c0ffee"),
        remark="Predicted anew.",
        trained_on=3,
        losses={"all": {1: 2.0, 2: 1.0}, "mask": {1: 1.0, 2: 0.5}},
        figures={"AP50": {2: 0.25, 4: 0.5}},
        unseen=unseen,
    )
    return replace(report, **changes)


class Read(HTMLParser):
    """A page as it is read: its elements closed in order, ids, texts of an element, addresses, pictures."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.texts, self.addresses, self.pictures = [], [], {}, [], []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        assert len(named) == len(attributes), attributes
        self.ids += [named["id"]] if "id" in named else []
        self.addresses += [value for key, value in attributes if key in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            self.pictures.append(named)
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, text):
        for tag in set(self.open):
            self.texts[tag][-1] += text
