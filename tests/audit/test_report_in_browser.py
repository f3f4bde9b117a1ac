"""The report in a real Chromium: nothing logged, nothing fetched, tables sort, no script of a user runs, axe
is content.

Needs the packages playwright and axe-playwright-python (test extra) and Debian's chromium (apt-get install
chromium).
"""

import importlib.resources
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debias_ssae.audit import audit
from debias_ssae.audit.audit_page import write_audit_report
from debias_ssae.benchmark.page import write_benchmark_report

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH; apt-get install chromium"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 600), rng.choice(["f", "m", HOSTILE], 600)
    models = {"erm": np.where(rng.random(600) < 0.7, y, 0), "ssae": np.where(rng.random(600) < 0.8, y, 0)}
    report = audit(y, models, sensitive_features={"gender": group}, random_state=0, n_bootstrap=20)
    flips = {
        "n_texts": 9,
        "n_with_counterfactual": 8,
        "n_flipped": 4,
        "rate": 0.5,
        "ci_low": 0.2,
        "ci_high": 0.8,
        "by_prediction": [{"prediction": "a", "n": 8, "flipped": 4, "rate": 0.5}],
        "examples": [
            {"text": HOSTILE, "counterfactual": HOSTILE, "prediction": "a", "counterfactual_prediction": "b"}
        ],
    }
    result = {"probe": "linear", "given_y": False, "balanced_accuracy": 0.6, "ci_low": 0.5, "ci_high": 0.7}
    leakage = {
        "results": [{**result, "shuffled": 0.5, "chance": 0.5, "n": 9}],
        "claims": ["The strongest ..."],
    }
    write_audit_report(
        report.with_extras(flips=flips, leakage=leakage, provenance={"data": HOSTILE}), folder / "a.html"
    )
    row = {
        "setting": "confounded",
        "regime": "none",
        "representation": "mean(final)",
        "head": "frozen",
        "head_model": "logistic",
        "C_rule": "cv",
        "accuracy": 0.5,
        "balanced_accuracy": 0.6,
        "worst_group_accuracy_ci_low": 0.1,
        "worst_group_accuracy_ci_high": 0.9,
    }
    summary = [
        {**row, "method": m, "worst_group_accuracy": w}
        for m, w in ((HOSTILE, 0.2), ("ssae", 0.8), ("erm", 0.1))
    ]
    write_benchmark_report({"data": {"path": HOSTILE, "n": 3}, "summary": summary}, folder / "b.html")
    return {"audit": folder / "a.html", "benchmark": folder / "b.html"}


@pytest.fixture(params=["audit", "benchmark"])
def opened(
    request: pytest.FixtureRequest, browser: Any, pages: dict[str, Path]
) -> Iterator[tuple[Any, list[str]]]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, events = context.new_page(), []
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("request", lambda asked: events.append(f"request: {asked.url}"))
    page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
    page.goto(pages[request.param].as_uri())
    yield page, events
    context.close()


def test_nothing_is_logged_or_fetched_and_no_script_of_a_user_runs(opened: tuple[Any, list[str]]) -> None:
    page, events = opened
    page.wait_for_timeout(200)
    assert len(events) == 1, events  # the file itself
    assert events[0].startswith("request: file://")
    assert page.title() != "owned"
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0


def test_tables_sort_both_ways_with_the_undefined_last(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    table = page.locator("table.sortable").last
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for column in range(table.locator("thead th").count()):
        head = table.locator("thead th").nth(column)
        read = "(t, c) => [...t.tBodies[0].rows].map(r => r.cells[c])"
        read += ".map(x => x.dataset.key ?? x.textContent.trim())"
        for direction in ("ascending", "descending"):
            head.locator("button").click()
            assert head.get_attribute("aria-sort") == direction
            keys = table.evaluate(f"t => ({read})(t, {column})")
            defined = [k for k in keys if k != ""]
            assert keys == defined + [""] * (len(keys) - len(defined))
            numbers = _numbers(defined)
            if numbers is not None:
                assert numbers == sorted(numbers, reverse=direction == "descending")


def _numbers(keys: list[str]) -> list[float] | None:
    try:
        return [float(k) for k in keys]
    except ValueError:
        return None


def test_every_image_has_a_text_alternative(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    labels = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(s => s.getAttribute('aria-label'))"
    )
    assert labels
    assert all(label and len(label) > 20 for label in labels)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(opened: tuple[Any, list[str]], scheme: str) -> None:
    page, _ = opened
    pytest.importorskip(
        "axe_playwright_python", reason="axe-playwright-python, which brings axe-core, is not installed"
    )
    axe = next(
        p for p in importlib.resources.files("axe_playwright_python").iterdir() if p.name == "axe.min.js"
    )
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert found["passes"]
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]


def test_the_page_fits_a_phone_and_changes_its_colours(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("button.theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_the_page_prints(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    assert page.pdf(format="A4").startswith(b"%PDF")
