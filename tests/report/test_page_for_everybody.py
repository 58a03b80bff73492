"""The page for everybody: keyboard, contrast, signs beside colours, phones. In headless Chromium."""

from pathlib import Path
from typing import Any

import pytest

Keys = pytest.importorskip("selenium.webdriver").Keys


def test_all_of_it_is_within_reach_of_the_keyboard(browser: Any, page: Path) -> None:
    browser.open(page)
    browser.js("document.getElementById('next').focus()")
    browser.press(Keys.ENTER)
    assert browser.text("#verdicts") == "Verdicts of round 1"
    browser.js("document.getElementById('chart-matrix').focus()")
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert browser.text("#announcement").startswith("encagg, round 2:")
    assert "; c1 " in browser.text("#announcement")
    browser.press(Keys.ESCAPE)
    assert "; c1 " not in browser.text("#announcement")
    focused = "return document.activeElement.dataset.focus"
    for key in ("table-round client c4", "table-round sort reason"):
        browser.js("document.querySelector(`[data-focus='${arguments[0]}']`).focus()", key)
        browser.press(Keys.ENTER)
        assert browser.js(focused) == key  # the table is new, the place in it is not lost
    unreachable = (
        "return [...document.querySelectorAll('button, select, input, a')].filter((one) => one.tabIndex < 0).length"
    )
    assert browser.js(unreachable) == 0
    browser.js("document.activeElement.blur(); document.body.focus()")
    browser.js("window.scrollTo(0, 0)")
    scrolling = "return [...document.querySelectorAll('.scroll, pre')].every((one) => one.tabIndex === 0)"
    assert browser.js(scrolling)


def test_outcomes_differ_in_shape_and_not_in_colour_alone(browser: Any, page: Path) -> None:
    browser.open(page)
    browser.choose("#round", "2")
    signs = {row.text[0] for row in browser.all("#table-round tbody td:nth-child(2)")}
    shapes = {mark.get_attribute("d") for mark in browser.marks("uploads")}
    assert len(shapes) == len(signs) == 4
    assert {chip.text for chip in browser.all("#legend .chip")} == signs
    assert len(browser.marks("signs")) == sum(int(count) for count in browser.column("table-clients", "rejected")) + 2


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_sticks_out_sideways(browser: Any, traced_page: Path, width: int) -> None:
    browser.open(traced_page, width=width)
    assert browser.js("return document.documentElement.scrollWidth") <= width
    for name in ("methods", "plane", "suspicion"):
        room, needed = browser.js(
            "const c = document.getElementById(arguments[0]); return [c.clientWidth, c.scrollWidth]", f"chart-{name}"
        )
        assert needed <= room


def test_pictures_follow_the_width_of_the_window(browser: Any, page: Path) -> None:
    browser.open(page)

    def width() -> float:
        """Asked in one go: a chart that follows the window is drawn anew, and an element found before is gone."""
        script = "return document.querySelector('#chart-matrix svg')?.getBoundingClientRect().width ?? Infinity"
        return float(browser.driver.execute_script(script) or "inf")

    browser.wait(lambda: width() < float("inf"))
    before = width()
    size = {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.wait(lambda: width() < before - 300)


CONTRASTS = """
    const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const luminance = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const color = numbers(getComputedStyle(one).backgroundColor);
            if (color.length === 3 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
        const nodes = [...element.childNodes].filter((node) => node.nodeType === 3);
        const text = nodes.map((node) => node.textContent.trim()).join('');
        const aside = element.closest('script, style, noscript, :disabled, [aria-hidden]');
        if (!text || !element.checkVisibility() || aside) continue;
        const style = getComputedStyle(element), inSvg = element instanceof SVGElement;
        const [a, b] = [luminance(numbers(inSvg ? style.fill : style.color)), luminance(ground(element))];
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text.slice(0, 40)]);
    }
    return found;
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, traced_page: Path, dark: bool) -> None:
    browser.open(traced_page, dark=dark)
    browser.click("#table-round td button")
    found = browser.js(CONTRASTS)
    assert len(found) > 100
    assert min(found)[0] >= 4.5, min(found)
    ground = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(15, 19, 24)" if dark else "rgb(255, 255, 255)")


def test_signs_stand_out_from_theirs(browser: Any, page: Path) -> None:
    for dark in (False, True):
        browser.open(page, dark=dark)
        hidden_too = CONTRASTS.replace(", [aria-hidden]", "")
        assert min(browser.js(hidden_too))[0] >= 3.0
