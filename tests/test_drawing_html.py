"""The page of a graph in a real browser, without a head: where Chromium and Selenium are."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw import drawing, models
from tinygrad_hw.models import example_loss

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.common.exceptions import WebDriverException

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROME = next(filter(None, map(shutil.which, NAMES)), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(not CHROME or not DRIVER, reason="needs Chromium and its driver"),
    pytest.mark.skipif(drawing.renderer() is None, reason="needs Graphviz or pygraphviz"),
]


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    try:
        driver = webdriver.Chrome(options=options, service=service)
    except WebDriverException as error:
        pytest.skip(f"the browser does not start: {error.msg}")
    driver.set_window_size(1280, 800)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    loss, names = example_loss(models.CNN(rng=0))
    x = tg.Tensor([0.0, 1.0], requires_grad=True, name="<b>x</b></script><script>alert(1)</script>")
    with np.errstate(all="ignore"):
        hunt = tg.log(x)
    freed = (x * x).sum()
    freed.backward()
    x.zero_grad()
    graphs = {
        "cnn": tg.draw(loss, names=names),
        "both": tg.draw(loss, names=names, order="both"),
        "hunt": tg.draw(hunt),
        "freed": tg.draw(freed),
    }
    return {name: graph.save(folder / f"{name}.html") for name, graph in graphs.items()}


@pytest.fixture
def opened(browser, pages):
    """Open a page; afterwards, nothing was fetched and nothing complained."""

    def open_page(name):
        browser.get(pages[name].as_uri())
        return browser

    browser.get_log("performance"), browser.get_log("browser")
    yield open_page
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    asked = [params["request"]["url"] for params in sent]
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert browser.get_log("browser") == []


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def box(browser, title):
    """Find a shown box by its title."""
    (found,) = [
        g for g in find(browser, ".view.shown g.node")
        if g.get_attribute("aria-label").split(",")[0] == title
    ]  # fmt: skip
    return found


def slide(browser, name, value):
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input'))",
        name, value,
    )  # fmt: skip


def text(browser, name):
    return browser.find_element("id", name).text


def test_it_renders_every_box(opened):
    browser = opened("cnn")
    assert len(find(browser, ".view.shown g.node")) == 14
    assert len(find(browser, ".view.shown g.cluster")) == 3
    assert box(browser, "conv.weight").is_displayed()
    assert "8 ops" in browser.title
    assert text(browser, "title") == "Choose a box"


def test_a_click_tells_shape_value_gradient_and_histogram(opened):
    browser = opened("cnn")
    box(browser, "conv.weight").click()
    facts = text(browser, "facts")
    for said in ("shape\n(3, 3, 1, 3)", "float32", "value\n[", "grad\nnorm ", "used by\nconv"):
        assert said in facts
    heights = {bar.size["height"] for bar in find(browser, "#bars i")}
    assert len(heights) > 3
    find(browser, "#facts button")[0].click()
    assert text(browser, "title") == "conv"
    assert len(find(browser, "g.edge.chosen")) == 3


def test_search_finds_boxes(opened):
    browser = opened("cnn")
    field = browser.find_element("id", "search")
    field.send_keys("WEIGHT")
    assert text(browser, "hits") == "2 found"
    assert text(browser, "title") == "conv.weight"
    field.send_keys("\n")
    assert text(browser, "title") == "out.weight"
    assert [g.get_attribute("aria-label") for g in find(browser, ".shown g.found")] == [
        "conv.weight", "out.weight",
    ]  # fmt: skip
    field.clear()
    field.send_keys("nothing like it")
    assert text(browser, "hits") == "0 found"


def test_the_slider_moves_gradients_through_the_graph(opened):
    browser = opened("cnn")
    assert find(browser, "g.badge") == []
    order = []
    for step in range(1, 4):
        slide(browser, "play", step)
        assert len(find(browser, "g.badge")) == step
        assert len(find(browser, ".shown g.node.waiting")) == 14 - step
        order.append(text(browser, "step").split(": ")[1].split(",")[0])
    assert order == ["softmax_cross_entropy", "add", "matmul"]
    assert "gradient" in text(browser, "step")
    slide(browser, "play", 0)
    assert find(browser, "g.badge") == []


def test_the_recorded_backward_plays_in_its_order(opened):
    browser = opened("both")
    slide(browser, "play", 1)
    first = text(browser, "step")
    slide(browser, "play", 14)
    assert first.startswith("1 of 14: ")
    assert text(browser, "step").startswith("14 of 14: conv_dw")


def test_without_gradients_the_slider_says_why(opened):
    browser = opened("freed")
    assert not browser.find_element("id", "play").is_enabled()
    assert "retain_graph=True" in browser.find_element("id", "backward").get_attribute("title")


def test_modules_fold_and_unfold(opened):
    browser = opened("cnn")
    (title,) = [t for t in find(browser, ".shown g.cluster text") if t.text == "conv: Conv2d"]
    title.click()
    assert not box(browser, "conv.weight").is_displayed()
    assert box(browser, "relu").is_displayed()
    (lid,) = find(browser, ".shown g.lid")
    assert "conv: Conv2d" in lid.text
    lid.send_keys("\n")
    assert box(browser, "conv.weight").is_displayed()
    assert find(browser, ".shown g.lid") == []

    slide(browser, "depth", 0)
    assert [g.text.split("\n")[0] for g in find(browser, ".shown g.node.fold")] == ["CNN"]
    slide(browser, "depth", 1)
    assert len(find(browser, ".shown g.node.fold")) == 2


def test_the_keyboard_reaches_everything(opened):
    browser = opened("cnn")
    keys = webdriver.Keys
    reached = []
    for _ in range(60):
        browser.switch_to.active_element.send_keys(keys.TAB)
        element = browser.switch_to.active_element
        reached.append(element.get_attribute("id") or element.get_attribute("aria-label"))
    for wanted in ("search", "depth", "play", "run", "fit", "theme", "stage", "v2-n0"):
        assert wanted in reached
    assert "Fold conv: Conv2d" in reached
    box(browser, "relu").send_keys("\n")
    assert text(browser, "title") == "relu"
    stage = browser.find_element("id", "stage")
    before = find(browser, ".view.shown")[0].get_attribute("style")
    stage.send_keys(keys.ARROW_LEFT, "+")
    assert find(browser, ".view.shown")[0].get_attribute("style") != before


def test_light_and_dark(opened):
    browser = opened("hunt")
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(colour)
    browser.find_element("id", "theme").click()
    assert browser.execute_script(colour) != light
    browser.find_element("id", "theme").click()
    assert browser.execute_script(colour) == light


def test_what_is_wrong_is_said_and_names_are_text(opened):
    browser = opened("hunt")
    (log,) = [g for g in find(browser, ".shown g.node.marked") if g.text.startswith("log")]
    log.click()
    assert text(browser, "marks") == "! infinity in 1 of 2, from finite inputs"
    find(browser, "#facts button")[0].click()
    assert text(browser, "title") == "<b>x</b></script><script>alert(1)</script>"


def test_it_fits_a_narrow_window(opened):
    browser = opened("cnn")
    browser.set_window_size(500, 800)
    try:
        wide = "return document.documentElement.scrollWidth > innerWidth"
        assert not browser.execute_script(wide)
        box(browser, "images").click()
        assert browser.find_element("id", "facts").is_displayed()
    finally:
        browser.set_window_size(1280, 800)
