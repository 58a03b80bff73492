"""The page at work, in headless Chromium: rounds, clients, planes, gates; and what it must never do."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encagg_cli.cli import main

Save = Callable[..., Path]
Rows = Callable[..., list[dict[str, Any]]]
Report = Callable[..., Path]


def test_it_opens_without_complaint_and_asks_for_nothing(browser: Any, page: Path, traced_page: Path) -> None:
    for one in (page, traced_page):
        browser.open(one)
        for name in ("methods", "matrix", "plane", "suspicion"):
            assert browser.all(f"#chart-{name} svg")
        browser.hover(browser.marks("uploads")[0])
        assert browser.complaints() == []
        assert browser.requests() == [one.as_uri()]


def test_its_policy_stops_what_would_run_or_fetch(browser: Any, page: Path) -> None:
    browser.open(page)
    browser.js("const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)")
    browser.js("const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i)")
    browser.js("document.body.insertAdjacentHTML('beforeend', '<img src=\"x\" onerror=\"window.ran = 2\">')")
    time.sleep(0.3)
    assert browser.js("return window.ran") is None
    assert len([one for one in browser.complaints() if "Content Security Policy" in one]) >= 3


def test_a_round_is_picked_and_stepped_through(browser: Any, page: Path) -> None:
    browser.open(page)
    assert browser.text("#announcement") == "encagg, round 0: 2 of 8 uploads rejected"
    assert not browser.find("#previous").is_enabled()
    browser.click("#next")
    browser.click("#next")
    assert browser.text("#verdicts") == "Verdicts of round 2"
    assert browser.find("#round").get_attribute("value") == "2"
    assert browser.column("table-round", "truth").count("poisoned (lie)") == 2
    browser.choose("#round", "3")
    assert browser.text("#heading-plane") == "The plane of round 3"
    assert not browser.find("#next").is_enabled()
    browser.click("#previous")
    assert browser.text("#announcement") == "encagg, round 2: 2 of 8 uploads rejected"


def test_a_cell_of_the_matrix_leads_to_its_round_and_client(browser: Any, page: Path) -> None:
    browser.open(page)
    cells = browser.marks("cells")
    assert len(cells) == 4 * 8
    browser.click_on(cells[8 * 2 + 3])  # rows are by round, then client
    assert browser.text("#announcement") == "encagg, round 2: 2 of 8 uploads rejected; c3 accepted, kept"
    assert [row.text.split()[0] for row in browser.all("#table-round tr[aria-current]")] == ["c3"]
    assert len(browser.marks("client_frame")) == 1
    assert len(browser.marks("chosen")) == 1
    assert len(browser.marks("points")) == 4  # its suspicion, round by round


def test_an_upload_in_the_plane_leads_to_its_client(browser: Any, page: Path) -> None:
    browser.open(page)
    browser.click_on(browser.marks("uploads")[4])
    assert "; c4 " in browser.text("#announcement")


def test_a_client_is_chosen_in_a_table_and_let_go(browser: Any, page: Path) -> None:
    browser.open(page)
    button = "button[data-focus='table-clients client c5']"
    browser.click(button)
    assert browser.text("#suspicion-hint") == "Client c5; the others are faint."
    browser.click(button)
    assert browser.text("#suspicion-hint").startswith("Choose a client")
    assert browser.all("tr[aria-current]") == []


def test_searching_narrows_the_matrix_and_the_tables(browser: Any, page: Path) -> None:
    browser.open(page)
    browser.search("C3")
    assert browser.column("table-round", "client") == ["c3"]
    assert browser.column("table-clients", "client") == ["c3"]
    assert len(browser.marks("cells")) == 4
    assert len(browser.marks("points")) == 4
    browser.search("nobody")
    assert browser.column("table-round", "client") == ["No client matches."]
    assert browser.marks("cells") == []
    browser.search("c")
    assert len(browser.marks("cells")) == 32
    assert browser.complaints() == []


def test_tables_are_sorted_by_any_column(browser: Any, page: Path) -> None:
    browser.open(page)
    scores = [float(cell) for cell in browser.column("table-round", "suspicion")]
    assert scores == sorted(scores, reverse=True)
    sort = "button[data-focus='table-round sort {}']"
    browser.click(sort.format("score"))
    scores = [float(cell) for cell in browser.column("table-round", "suspicion")]
    assert scores == sorted(scores)
    assert [cell.get_attribute("aria-sort") for cell in browser.all("#table-round th")].count("ascending") == 1
    browser.click(sort.format("client"))
    assert browser.column("table-round", "client") == [f"c{client}" for client in range(8)]
    browser.click("button[data-focus='table-clients sort rejected']")
    counts = [int(cell) for cell in browser.column("table-clients", "rejected")]
    assert counts == sorted(counts, reverse=True)
    browser.choose("#order", "how often they were rejected")
    labels = [label.text for label in browser.all("#chart-matrix .role-axis-label text")]
    assert next(label for label in labels if label.startswith("c")) == "c0"


def test_tooltips_say_why(browser: Any, page: Path) -> None:
    browser.open(page)
    browser.hover(browser.marks("cells")[0])
    tooltip = browser.wait(lambda: browser.all("#vg-tooltip-element.visible"))[0]
    cells = [cell.text.rstrip(":") for cell in tooltip.find_elements("css selector", "td")]
    facts = dict(zip(cells[::2], cells[1::2], strict=True))
    assert facts["client"] == "c0"
    assert facts["verdict"] == "rejected"
    assert facts["reason"] == "other-cluster"
    assert facts["cluster"] == "noise"
    assert facts["suspicion"] == "0.9"
    assert facts["known-benign"] == "no"


def test_methods_are_side_by_side_and_one_is_looked_at(browser: Any, page: Path) -> None:
    browser.open(page)
    assert browser.column("methods", "method") == ["encagg", "krum(f=1)"]
    assert browser.column("methods", "precision")[0].startswith("0.")
    assert set(browser.column("table-round", "rejected by")) == {"0 of 2", "2 of 2"}
    browser.choose("#method", "krum(f=1)")
    assert browser.text("#announcement").startswith("krum(f=1), round 0")


def test_many_methods_are_rows_not_lines(
    browser: Any, folder: Path, save_verdicts: Save, some_rows: Rows, page_of: Report
) -> None:
    names = [f"krum(f={f})" for f in range(1, 8)]
    browser.open(page_of(save_verdicts(folder / "many.parquet", some_rows(methods=names))))
    assert len(browser.all("#chart-methods .mark-rect.role-mark path")) == 4 * 7
    assert browser.complaints() == []


def test_failed_gates_come_first(
    browser: Any,
    folder: Path,
    save_verdicts: Save,
    some_rows: Rows,
    capsys: pytest.CaptureFixture[str],
    page_of: Report,
) -> None:
    verdicts = save_verdicts(folder / "gated.parquet", some_rows())
    capsys.readouterr()
    assert main(["score", str(verdicts), "--json", "--max-rejected", "0.9", "--min-recall", "0.99"]) == 3
    (folder / "score.json").write_text(capsys.readouterr().out)
    browser.open(page_of(verdicts, "--score", folder / "score.json"))
    assert browser.text("#gates h3") == "Gates: 2 of 4 failed"
    gates = [gate.get_attribute("class") for gate in browser.all("#gates li")]
    assert gates == ["failed", "failed", "passed", "passed"]
    assert "bound ≥ 0.99" in browser.text("#gates li")
    assert "is below 0.99" in browser.text("#gates li")


def test_the_plane_has_clusters_known_benign_clients_and_noise(browser: Any, page: Path) -> None:
    browser.open(page)
    assert len(browser.marks("uploads")) == 8
    assert len(browser.marks("known")) == 2
    names = {text.text for text in browser.all(".clusters_marks text")}
    assert names == {"cluster 0"}
    hollow = [float(mark.get_attribute("fill-opacity") or 1) < 0.5 for mark in browser.marks("uploads")]
    assert sum(hollow) == browser.column("table-round", "cluster").count("noise") == 2


def test_a_close_up_leaves_out_what_lies_far_away(
    browser: Any, folder: Path, save_verdicts: Save, page_of: Report
) -> None:
    rows = [
        {"round": 0, "client_id": f"c{client}", "accepted": client > 0, "x": 1e6 if client == 0 else client, "y": 0.0}
        for client in range(5)
    ]
    browser.open(page_of(save_verdicts(folder / "far.parquet", rows)))
    assert "outside" not in browser.text("#plane-hint")
    crowded = {mark.location["x"] for mark in browser.marks("uploads")}
    browser.click("#close")
    assert "1 lie outside this close-up." in browser.text("#plane-hint")
    assert len({mark.location["x"] for mark in browser.marks("uploads")}) > len(crowded)


def test_a_trace_adds_radius_and_the_second_clustering(browser: Any, traced_page: Path) -> None:
    browser.open(traced_page)
    assert len(browser.marks("radius")) == len(browser.marks("known")) == 4
    assert browser.all(".pseudo_marks text") == []  # they lie in the other plane
    browser.choose("#clustering", "second: with pseudo-gradients")
    assert len(browser.all(".pseudo_marks text")) == 100
    assert "pseudo-gradients" in browser.text("#plane-hint")
    assert len(browser.marks("uploads")) <= 14
    circle = browser.marks("radius")[0].rect
    assert circle["width"] == pytest.approx(circle["height"], rel=0.05)
    assert browser.text("#run").startswith("attacked: 4 stored rounds")
    assert '"encagg"' in browser.text("#signature")
    browser.choose("#method", "krum(f=4)")
    assert not browser.find("#clustering-choice").is_displayed()
    assert browser.complaints() == []


def test_a_method_without_a_plane_says_so(
    browser: Any, folder: Path, save_verdicts: Save, some_rows: Rows, page_of: Report
) -> None:
    browser.open(page_of(save_verdicts(folder / "planeless.parquet", some_rows(plane=False))))
    assert browser.text("#plane-hint") == "This method placed no client of this round in a plane."
    assert browser.all("#chart-plane svg") == []
    assert set(browser.column("table-round", "cluster")) == {"–", "noise"}
    assert browser.complaints() == []


def test_without_labels_it_claims_no_truth(
    browser: Any, folder: Path, save_verdicts: Save, some_rows: Rows, page_of: Report
) -> None:
    browser.open(page_of(save_verdicts(folder / "unlabelled.parquet", some_rows(labels=False))))
    assert [cell.text for cell in browser.all("#methods th")] == ["method", "rejected"]
    assert "No upload has a label" in browser.text("#scores-hint")
    assert set(browser.column("table-round", "truth")) == {"unknown"}
    assert "honest" not in browser.text("#legend")
    assert "truth unknown" in browser.text("#legend")


@pytest.mark.parametrize(("rounds", "clients"), [(1, 1), (1, 5), (2, 2), (5, 1)])
def test_one_round_or_one_client(
    browser: Any, folder: Path, save_verdicts: Save, some_rows: Rows, rounds: int, clients: int, page_of: Report
) -> None:
    rows = some_rows(rounds=rounds, clients=clients, methods=("encagg",))
    browser.open(page_of(save_verdicts(folder / f"{rounds}x{clients}.parquet", rows)))
    browser.click_on(browser.marks("cells")[-1])
    assert len(browser.marks("points")) == rounds
    ticks = [tick.text for tick in browser.all("#chart-suspicion .role-axis-label text")]
    assert [tick for tick in ticks if tick.isdigit()][:rounds] == [str(number) for number in range(rounds)]
    assert browser.complaints() == []


def test_figures_without_bounds_do_not_break_the_pictures(
    browser: Any, folder: Path, save_verdicts: Save, page_of: Report
) -> None:
    rows = [
        {"round": 0, "client_id": "far", "accepted": False, "score": float("inf"), "x": 1e300, "y": -1e300},
        {"round": 0, "client_id": "lost", "accepted": False, "score": 1.0, "x": float("nan"), "y": 1.0},
        {"round": 0, "client_id": "near", "score": 0.0, "x": 1e-300, "y": 0.0, "trusted": True},
    ]
    browser.open(page_of(save_verdicts(folder / "unbounded.parquet", rows)))
    assert browser.column("table-round", "suspicion") == ["∞", "1", "0"]
    assert len(browser.marks("uploads")) == 2
    assert "1 of 3 uploads have no place" in browser.text("#plane-hint")
    browser.click("#close")
    assert browser.complaints() == []


HOSTILE = [
    "<img src=x onerror=window.ran=1>",
    "</script><script>window.ran=1</script>",
    "two\nlines",
    "'\"`${window.ran=1}\\",
    "[link](javascript:window.ran=1)",
    "__proto__",
    "\u202eright to left",
    "long-" * 200,
]


def test_hostile_ids_are_text(browser: Any, folder: Path, save_verdicts: Save, page_of: Report) -> None:
    rows = [
        {"round": number, "client_id": client, "reason": client, "attack": client, "poisoned": True, "method": method}
        | {"x": float(place), "y": float(number), "cluster": 0, "score": place / 10}
        for number in range(2)
        for method in ("encagg", "<b>krum</b>")
        for place, client in enumerate(HOSTILE)
    ]
    browser.open(page_of(save_verdicts(folder / "hostile.parquet", rows)))
    assert sorted(browser.column("table-round", "client")) == sorted(HOSTILE)
    assert browser.column("methods", "method")[1] == "<b>krum</b>"
    for place in range(len(HOSTILE)):
        browser.hover(browser.marks("cells")[place])
        browser.wait(lambda: browser.all("#vg-tooltip-element.visible"))
        browser.click_on(browser.marks("uploads")[place])
        assert browser.column("table-round", "client")  # still drawn
    assert browser.js("return document.querySelectorAll('img, b, main script, #vg-tooltip-element a').length") == 0
    assert browser.js("return window.ran") is None
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == []
    assert len(browser.requests()) == 1


def test_a_hundred_rounds_of_a_hundred_clients_open_and_answer(
    browser: Any, folder: Path, save_verdicts: Save, some_rows: Rows, page_of: Report
) -> None:
    rows = some_rows(rounds=100, clients=100, methods=("encagg",), name="client-{:03d}".format)
    large = page_of(save_verdicts(folder / "large.parquet", rows))
    assert large.stat().st_size < 5_000_000
    started = time.monotonic()
    browser.open(large)
    assert time.monotonic() - started < 30  # two to four seconds, on a machine that is not busy
    cells = "return views['chart-matrix'].data('rows').length"
    assert browser.js(cells) == 10_000
    browser.js("window.first = views['chart-matrix']")
    browser.click("#next")
    assert browser.text("#announcement").startswith("encagg, round 1:")
    assert browser.js("return window.first === views['chart-matrix']")  # its cells are not drawn anew
    canvas = browser.find("#chart-matrix canvas")
    browser.hover(canvas)
    browser.wait(lambda: browser.all("#vg-tooltip-element.visible"))
    browser.click_on(canvas)  # its middle
    assert browser.text("#announcement").startswith(("encagg, round 4", "encagg, round 5"))
    assert "; client-0" in browser.text("#announcement")
    browser.search("client-042")
    assert browser.js(cells) == 100
    assert browser.complaints() == []
