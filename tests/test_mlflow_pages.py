"""What a person sees in `mlflow ui` after a search and a final training, in a real browser.

The store is a small one made here, or that of the root which CELLSEG_PAGES names, such as the one that `make demo`
left; screenshots go to CELLSEG_SCREENSHOTS, or else to a temporary folder.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from browser import browsing
from mlflow import MlflowClient
from mlflow_server import serving, wait_for
from scripts import ROOT, SMALL, run
from selenium.webdriver.common.keys import Keys

from cellseg.sample import write

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="chromium and chromedriver are not here; `apt-get install chromium chromium-driver` installs them",
)
STORED = {
    "mlflow.workflowType_v1": json.dumps("machine_learning"),  # "Model training", top left
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",  # its chat covers a quarter of a first page
}
SEARCH = "input[placeholder='Search metric charts']"
DRAWN = """
return [...document.querySelectorAll('.js-plotly-plot')].map(plot => [
    plot.data[0].metricKey, plot.data[0].y.length, plot.querySelectorAll('.scatterlayer path.js-line[d]').length])
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root where a study of two trials and a final training have run."""
    if named := os.environ.get("CELLSEG_PAGES"):
        return Path(named).resolve()
    folder = tmp_path_factory.mktemp("root")
    write(folder / "data", train=4, test=0)
    study = ("--trials", "2", "--trial-epochs", "1", "--finalists", "0", "--workers", "1", "--yardsticks", "gated")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run(folder, ROOT / "search/optuna_study.py", *SMALL, *study)
        run(folder, ROOT / "experiments/final_train.py", *SMALL)
    return folder


@pytest.fixture(scope="module")
def store(root):
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture(scope="module")
def browser(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    screenshots = Path(os.environ.get("CELLSEG_SCREENSHOTS", folder)).resolve()
    log = folder / "server.log"
    with serving(root, log) as url, browsing(url, screenshots, STORED) as opened:
        wait_for(url, log)
        yield opened


@pytest.fixture(scope="module")
def study(store):
    """The newest study's run, and the names of those below it."""
    experiment = store.get_experiment_by_name("cellseg-search").experiment_id
    parent = store.search_runs([experiment], "tags.kind = 'study'", max_results=1)[0]
    children = store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return parent, {child.info.run_name for child in children}


@pytest.fixture(scope="module")
def final(store):
    """The newest final training's run."""
    experiment = store.get_experiment_by_name("cellseg-final").experiment_id
    return store.search_runs([experiment], "status = 'FINISHED'", max_results=1)[0]


def address(found, page=""):
    """The route of a run's page."""
    return f"/experiments/{found.info.experiment_id}/runs/{found.info.run_id}{page}"


def rows(browser):
    return {line for row in browser.all(".ag-row") for line in row.text.splitlines()}


def test_the_trials_lie_below_their_study(browser, study):
    parent, children = study
    assert len(children) >= 2
    browser.open(f"/experiments/{parent.info.experiment_id}/runs")
    choose(browser, "by study")
    name = parent.info.run_name
    browser.until("study alone", lambda: name in rows(browser) and not children & rows(browser))
    browser.click(".ag-row", name, inside="button")
    browser.until("trials below the study", lambda: children <= rows(browser))
    browser.shot("by-study")


def test_runs_are_sorted_by_ap50_in_a_view_that_shows_their_whole_names(browser, study):
    parent, children = study
    browser.open(f"/experiments/{parent.info.experiment_id}/runs")
    browser.until("study", lambda: parent.info.run_name in rows(browser))
    browser.until("name that is cut", lambda: cut(browser, {parent.info.run_name}))
    choose(browser, "by AP50")
    for column in ("best/AP50", "best/AP", "train.learning_rate", "pruned", "Dataset"):
        browser.one(".ag-header-cell", column)
    browser.until("runs", lambda: {parent.info.run_name, *children} <= rows(browser))
    browser.until("whole names", lambda: cut(browser, {parent.info.run_name, *children}) == [])
    browser.shot("by-AP50")


def choose(browser, view):
    """Choose a saved view and close the bar that says so."""
    browser.click("button", "Views")
    browser.click("[role=menuitem]", view)
    browser.click("[role=alert] button[aria-label='Hide banner']")


def cut(browser, names):
    """Which of the names of runs are shown in part; None while not all are shown."""
    script = "return arguments[0].scrollWidth > arguments[0].clientWidth + 1"
    shown = [name for name in browser.all(".ag-row a span") if name.text in names]
    if {name.text for name in shown} != names:
        return None
    return [name.text for name in shown if browser.driver.execute_script(script, name)]


def test_a_study_tells_on_its_page_what_it_learned(browser, study):
    browser.open(address(study[0]))
    browser.one("li", "Tried")
    browser.click("button", "Show more")
    browser.one("li", "Recall check")
    browser.shot("study-page")


@pytest.mark.parametrize("metric", ["train/loss", "val/AP50"])
def test_the_loss_and_the_ap_are_drawn(browser, store, final, metric):
    steps = len(store.get_metric_history(final.info.run_id, metric))
    assert steps >= 2
    browser.open(address(final, "/model-metrics"))
    browser.press(SEARCH, metric)
    browser.until(f"chart of {metric} with {steps} values", lambda: drawn(browser, metric) == steps)
    browser.shot(metric.replace("/", "-"))


def drawn(browser, metric):
    """The number of values in the chart of a metric; None while no line is drawn."""
    charts = {name: values for name, values, lines in browser.driver.execute_script(DRAWN) if lines}
    return charts.get(metric)


def test_the_pictures_of_an_image_begin_with_the_truth_and_go_on_with_each_epoch(browser, store, final):
    epochs = [metric.step for metric in store.get_metric_history(final.info.run_id, "val/AP50")]
    browser.open(address(final, "/model-metrics"))
    browser.press(SEARCH, "validation/")
    browser.picture(".rc-image-img", "%2Bstep%2B0%2B")
    browser.click("[data-testid='experiment-view-compare-runs-card-menu']")
    browser.click("[role=menuitem]", "Configure")
    browser.click("[role=dialog] [role=switch]")  # the parameters, which hide the picture
    browser.click("[role=dialog] button", "Save changes")
    browser.until("page again", lambda: not browser.all("[role=dialog]"))
    for step in epochs:
        browser.press("[role=slider]", Keys.ARROW_RIGHT)
        browser.picture(".rc-image-img", f"%2Bstep%2B{step}%2B")
    browser.shot("pictures")


def test_a_precision_recall_curve_is_there_for_each_epoch(browser, store, final):
    curves = [item.path for item in store.list_artifacts(final.info.run_id, "curves")]
    assert len(curves) == len(store.get_metric_history(final.info.run_id, "val/AP50"))
    browser.open(address(final, f"/artifacts/{curves[-1]}"))
    browser.picture("img[src^=blob]")
    for path in curves:
        browser.one("div", Path(path).name)
    browser.shot("curves")


def test_the_checkpoint_is_there(browser, final):
    browser.open(address(final, "/artifacts/checkpoints/best.pt"))
    browser.one("div", "checkpoints/best.pt")
    browser.one("div", "MB")
    browser.shot("checkpoint")


def test_the_registered_model_has_a_best_version_that_leads_to_its_run(browser, store):
    best = store.get_model_version_by_alias("cellseg", "best")
    browser.open("/models")
    browser.one("[role=row]", "cellseg")
    browser.one("[role=row]", "@ best")
    browser.open(f"/models/cellseg/versions/{best.version}")
    browser.one("a", store.get_run(best.run_id).info.run_name)
    for text in ("@ best", "AP50", best.tags["digest"], best.description):
        browser.one("div", text)
    browser.shot("registered")


def test_no_page_asked_another_machine_for_anything(browser):
    browser.open("/")
    browser.one("a", "Experiments")
    assert browser.asked() == {"127.0.0.1"}
