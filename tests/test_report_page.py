import base64
import io
import re
import shutil
from dataclasses import replace

import pytest
from PIL import Image
from reports import Read, found_again, report_of, unseen_of

from cellseg.report_page import page

SECTIONS = ["figures", "curves", "classes", "confusion", "sizes", "reliability", "images", "config", "plan", "command"]
NASTY = ('<b>bold</b>"', "<script>alert(1)</script>", "$x^{", "class & 4")


@pytest.fixture(scope="module")
def report(data, run_config):
    """Of a network that found all but one cell, of classes and images whose names look like HTML."""
    records = tuple(replace(each, name=f"<i>{each.name}") for each in data.records)
    nasty = replace(data, class_names=NASTY, records=records)
    unseen = unseen_of(nasty, found_again(nasty.truth(), missed=1))
    return report_of(nasty, run_config, unseen, name="a < b", metrics={"folds/epochs": 2.0})


@pytest.fixture(scope="module")
def html(report):
    return page(report)


def test_every_section_is_there_has_a_heading_and_is_linked(html):
    read = Read(html)
    assert read.ids == SECTIONS
    assert [address for address in read.addresses if address.startswith("#")] == [f"#{name}" for name in SECTIONS]
    assert len(read.texts["h2"]) == len(SECTIONS)
    assert read.texts["h1"] == ["a < b"]
    assert read.texts["title"] == ["a < b · cellseg report"]


def test_the_page_needs_no_other_file_and_runs_nothing(html):
    read = Read(html)
    assert all(address.startswith(("#", "data:image/")) for address in read.addresses)
    assert "://" not in html
    assert "@import" not in html
    assert "script" not in read.texts
    assert """content="default-src &#x27;none&#x27;; img-src data:; style-src""" in html


def test_every_picture_opens_and_is_told_in_words(html):
    pictures = Read(html).pictures
    assert len(pictures) == 6 + 2 * 4  # figures; images with truth and prediction
    assert all(each["alt"] for each in pictures)
    for each in pictures:
        kind, content = re.fullmatch(r"data:image/(.+);base64,(.+)", each["src"]).groups()
        if kind == "jpeg":
            with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
                opened.verify()
        else:
            assert base64.b64decode(content).startswith(b"<?xml")


def test_names_from_outside_are_read_and_not_obeyed(html):
    read = Read(html)
    assert not [name for name in NASTY[:2] if name in html]
    assert all(name in read.texts["table"][2] for name in NASTY)
    assert set(read.texts["b"]) == {f"<i>image{number}" for number in range(4)}
    assert "i" not in read.texts


def test_every_table_has_a_caption_and_the_language_is_told(html):
    read = Read(html)
    assert len(read.texts["caption"]) == len(read.texts["table"])
    assert '<html lang="en">' in html


def test_without_unseen_images_the_page_says_so_and_tells_the_rest(report):
    read = Read(page(replace(report, unseen=None, remark="Trained on all images.")))
    assert read.ids == ["curves", "config", "plan", "command"]
    assert "Trained on all images." in read.texts["p"]


def test_without_anything_logged_there_are_no_curves(report):
    assert "curves" not in Read(page(replace(report, losses={}, figures={}))).ids


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver = shutil.which("chromedriver")
    if not (driver and shutil.which("chromium")):
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_all_of_it_without_scrolling_sideways(html, browser, tmp_path, width, scheme):
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
    browser.get_log("performance")
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.get_log("browser") == []
    assert "loadingFailed" not in str(browser.get_log("performance"))
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 14
    assert min(widths) > 0
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
