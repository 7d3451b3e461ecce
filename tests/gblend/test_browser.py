"""The pages in a browser, as a reader has them: headless Chromium, driven by selenium, on files."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gblend.outputs import HeadOutputs, save_outputs
from gblend.report import write_report
from gblend.run_files import OUTPUTS_FILE
from gblend.runs import load_runs
from gblend.tuning_page import write_tuning_page
from tests.gblend.test_report import SAMPLES, SUMMARY, write_comparison
from tests.gblend.test_trial_figures import trials

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="no chromium and chromedriver here; on Debian: apt-get install chromium chromium-driver",
)

PHONE, DESK, PAPER = 390, 1280, 717
"""Widths in CSS pixels; of A4 within the margins that the browser leaves."""

BOXES = """
return [...document.querySelectorAll(arguments[0])].map((svg) => {
  const drawn = [...svg.querySelectorAll("path, use, image, text")].map((each) => each.getBoundingClientRect());
  const box = svg.getBoundingClientRect();
  const seen = drawn.filter((each) => each.width + each.height > 0);
  return [svg.closest("section").id, box.width, box.height, seen.length];
});
"""

WIDER = """
const wide = (element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
const inside = (element) => element.closest(".scroll") === null;
const found = [...document.querySelectorAll("body *")].filter((each) => wide(each) && inside(each));
return found.map((each) => each.outerHTML);
"""

CUT = """
const found = [...document.querySelectorAll(".scroll")].filter((each) => each.scrollWidth > each.clientWidth + 1);
return found.map((each) => [each.textContent.trim().slice(0, 40), each.scrollWidth, each.clientWidth]);
"""

COLOURS = """
const text = document.querySelector("section svg text");
return [getComputedStyle(document.body).backgroundColor, getComputedStyle(text).fill];
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report on methods of three heads with everything it can show, and the page of a search."""
    folder = tmp_path_factory.mktemp("pages")
    write_comparison(folder)
    rng = np.random.default_rng(0)
    for place in sorted((folder / "runs").iterdir()):
        heads = {"uni-rgb": ("rgb",), "uni-logmel": ("logmel",), "naive": ("fused",)}.get(
            place.name.rpartition("-")[0], ("rgb", "logmel", "fused")
        )
        outputs = HeadOutputs(
            heads=heads,
            log_probs=np.log(rng.dirichlet(np.ones(2), (len(heads), 40))).astype(np.float32),
            counted=np.ones((len(heads), 40), dtype=bool),
            labels=rng.integers(0, 2, 40),
            positions=np.arange(40),
        )
        save_outputs(f"{place}/{OUTPUTS_FILE}", {"": {"test": outputs}})
    search = write_tuning_page(
        trials(),
        out=str(folder / "search.html"),
        title="Search",
        tables=(),
        best_run=None,
        shares={"method": 0.7},
        why_no_shares="",
        config={"seed": 0},
        command="gblend tune small-cpu",
    )
    report = write_report(
        load_runs(str(folder)),
        out=str(folder / "report.html"),
        title="Study",
        samples=SAMPLES,
        dataset_summary=SUMMARY,
        command="gblend compare small-cpu",
    )
    return {"report": Path(report), "search": Path(search)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of this file."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser tests need selenium (extra `test`)")
    common = pytest.importorskip("selenium.common")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # No sandbox: containers run tests as root, and the pages are ours. Their /dev/shm is often too small.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    except common.WebDriverException as error:
        pytest.skip(f"{BROWSER} does not start here: {(error.msg or '').partition(chr(10))[0]}")
    try:
        yield driver
    finally:
        driver.quit()


def opened(browser: Any, page: Path, *, width: int = DESK, scheme: str = "light") -> Any:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
    browser.get(page.as_uri())
    return browser


@pytest.mark.parametrize("name", ["report", "search"])
def test_nothing_is_said_on_the_console_and_every_chart_is_drawn(pages, browser, name):
    opened(browser, pages[name])
    assert browser.get_log("browser") == []
    charts = browser.execute_script(BOXES, "section svg")
    assert all(width > 100 and height > 50 and drawn > 5 for _, width, height, drawn in charts)
    expected = {"accuracy", "losses", "epochs", "ogr", "weights", "classes", "confusion", "samples"}
    assert {section for section, *_ in charts} >= (
        expected if name == "report" else {"curves", "parallel", "importance", "cost"}
    )


@pytest.mark.parametrize("name", ["report", "search"])
def test_on_a_phone_only_tables_and_wide_figures_scroll_sideways(pages, browser, name):
    opened(browser, pages[name], width=PHONE)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE
    assert browser.execute_script(WIDER) == []


@pytest.mark.parametrize("name", ["report", "search"])
@pytest.mark.parametrize(("width", "media"), [(DESK, "screen"), (PAPER, "print")])
def test_no_column_of_a_table_is_cut_off_on_a_desk_or_on_paper(pages, browser, name, width, media):
    opened(browser, pages[name], width=width)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    assert browser.execute_script(CUT) == []


def methods(browser: Any) -> list[str]:
    return [row.get_attribute("data-method") for row in browser.find_elements("css selector", "#methods tbody tr")]


def test_a_click_on_a_header_sorts_its_table_by_number_and_the_next_one_turns_it_round(pages, browser):
    opened(browser, pages["report"])
    header = browser.find_element("xpath", "//section[@id='methods']//th[normalize-space()='test accuracy']")
    header.find_element("tag name", "button").click()
    assert header.get_attribute("aria-sort") == "descending"
    best = ["equal", "offline", "uni:logmel", "naive", "uni:rgb"]  # .600, .560, .500, .460, .410
    assert methods(browser) == best
    header.find_element("tag name", "button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert methods(browser) == best[::-1]


def test_the_keyboard_sorts_as_well_and_one_header_at_a_time_is_marked(pages, browser):
    opened(browser, pages["report"])
    first, second = browser.find_elements("css selector", "#methods thead tr:last-child th button")[:2]
    second.send_keys("\n")
    first.send_keys(" ")
    assert methods(browser) == sorted(methods(browser))
    marked = browser.find_elements("css selector", "#methods th[aria-sort]")
    assert [head.text.split()[0] for head in marked] == ["method"]


def test_a_dark_scheme_has_a_dark_page_and_light_text_in_figures(pages, browser):
    colours = {}
    for scheme in ("light", "dark"):
        opened(browser, pages["report"], scheme=scheme)
        colours[scheme] = browser.execute_script(COLOURS)
    brightness = {
        scheme: [sum(map(int, colour.strip("rgb()").split(","))) / 3 for colour in found]
        for scheme, found in colours.items()
    }
    assert brightness["light"][0] > 200 > brightness["light"][1] + 60
    assert brightness["dark"][0] < 60 < brightness["dark"][1] - 60


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_picture_of_the_whole_page_has_its_width_and_is_not_blank(pages, browser, width, tmp_path):
    opened(browser, pages["report"], width=width)
    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 0.25}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    picture = tmp_path / f"report-{width}.png"
    picture.write_bytes(base64.b64decode(shot["data"]))
    image = pytest.importorskip("PIL.Image").open(picture)
    assert image.width == pytest.approx(width / 4, abs=1)
    strips = np.array_split(np.asarray(image.convert("L"), dtype=float), 12)
    assert all(strip.std() > 1 for strip in strips)
