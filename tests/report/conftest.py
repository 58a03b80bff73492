"""Verdicts as a report's tests need them, and a real browser: headless Chromium, as Debian's packages bring it.

Where there is no chromium, chromedriver or selenium, what needs them is skipped.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encagg_cli.cli import main

Rows = list[dict[str, Any]]
Save = Callable[..., Path]


@pytest.fixture(scope="session")
def some_rows() -> Callable[..., Rows]:
    """Rows of verdicts; c0 and c1 poison from round 2 on, c0 is always rejected, the last two are known-benign."""

    def rows(
        *,
        rounds: int = 4,
        clients: int = 8,
        methods: Sequence[str] = ("encagg", "krum(f=1)"),
        labels: bool = True,
        plane: bool = True,
        name: Callable[[int], str] = "c{}".format,
    ) -> Rows:
        rng = np.random.default_rng(0)
        return [
            {
                "round": number,
                "client_id": name(client),
                "method": method,
                "accepted": client > 0 and (number + client) % 7 > 0,
                "score": round(0.9 - 0.01 * client if client == 0 or (number + client) % 7 == 0 else 0.04 * client, 3),
                "threshold": 0.5,
                "reason": "other-cluster" if client == 0 else "noise" if (number + client) % 7 == 0 else "kept",
                "cluster": -1 if (number + client) % 7 == 0 else int(client == 0) if plane else None,
                "x": float(rng.normal()) if plane else None,
                "y": float(rng.normal()) if plane else None,
                "trusted": client >= clients - 2,
                "poisoned": (client < 2 and number >= 2) if labels else None,
                "attack": "lie" if labels and client < 2 <= number else None,
            }
            for number in range(rounds)
            for method in methods
            for client in range(clients)
        ]

    return rows


@pytest.fixture
def path(tmp_path: Path, save_verdicts: Callable[..., Path], some_rows: Callable[..., Rows]) -> Path:
    return save_verdicts(tmp_path / "v.parquet", some_rows())


class Browser:
    """A page that is open, and what a person does with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def wait(self, condition: Callable[[], Any], *, seconds: float = 10) -> Any:
        """Wait until the condition holds; returns what it gave."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def open(self, page: Path, *, width: int = 1280, dark: bool = False) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # reading empties it
        self.driver.get(page.as_uri())
        self.settle()

    def settle(self) -> None:
        ready = "return document.body.dataset.ready === 'yes'"
        self.wait(lambda: self.js(ready), seconds=60)

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def _actions(self) -> Any:
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver)

    def choose(self, selector: str, text: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.find(selector)).select_by_visible_text(text)
        self.settle()

    def click(self, selector: str) -> None:
        self.click_on(self.find(selector))

    def click_on(self, element: Any) -> None:
        self.into_view(element)
        self._actions().click(element).perform()
        self.settle()

    def hover(self, element: Any) -> None:
        self.into_view(element)
        self._actions().move_to_element(element).perform()

    def press(self, *keys: str) -> None:
        for key in keys:
            self._actions().send_keys(key).perform()
            self.settle()

    def search(self, text: str) -> None:
        field = self.find("#search")
        field.clear()
        field.send_keys(text)
        self.settle()

    def into_view(self, element: Any) -> None:
        self.js("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)

    def column(self, table: str, title: str) -> list[str]:
        """The text of a column; its heading begins with `title`."""
        script = """
            const table = document.getElementById(arguments[0]), headings = [...table.querySelectorAll('th')];
            const place = headings.findIndex((cell) => cell.textContent.startsWith(arguments[1]));
            return [...table.querySelectorAll('tbody tr')].map((row) => row.cells[place].textContent)"""
        found: list[str] = self.js(script, table, title)
        return found

    def marks(self, name: str) -> list[Any]:
        """The marks of a layer."""
        return self.all(f".{name}_marks path")

    def text(self, selector: str) -> str:
        found: str = self.find(selector).text
        return found

    def complaints(self) -> list[str]:
        """What the console says, errors and warnings alike."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Everything that was asked for since the page was opened, but for what the page carries itself."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:")]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver")
    pytest.importorskip("vl_convert")
    found = [shutil.which(name) for name in ("chromium", "google-chrome", "chromium-browser")]
    chromium, chromedriver = next(filter(None, found), None), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    ).split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="session")
def page_of() -> Callable[..., Path]:
    """Writes a report beside its verdicts."""

    def write(verdicts: Path, *arguments: object) -> Path:
        page = verdicts.with_suffix(".html")
        assert main(["report", str(verdicts), "-o", str(page), *map(str, arguments)]) == 0
        return page

    return write


@pytest.fixture(scope="session")
def page(folder: Path, save_verdicts: Save, some_rows: Callable[..., Rows], page_of: Callable[..., Path]) -> Path:
    """Four rounds, eight clients (c6 and c7 known-benign), two methods, labels."""
    return page_of(save_verdicts(folder / "v.parquet", some_rows()))


@pytest.fixture(scope="session")
def traced_page(folder: Path, attacked_run: Path, page_of: Callable[..., Path]) -> Path:
    """A real run under attack: EnCAgg with its trace, and a method without a plane."""
    verdicts, trace = folder / "traced.parquet", folder / "traced.h5"
    methods = ["--method", "encagg", "--method", "krum(f=4)"]
    assert main(["filter", str(attacked_run), "-o", str(verdicts), "--trace", str(trace), *methods]) == 0
    return page_of(verdicts, "--trace", trace, "--run", attacked_run)
