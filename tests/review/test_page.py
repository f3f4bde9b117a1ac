"""The page of latents: escaped, self-contained, says what is not known; and in a real Chromium."""

import importlib.resources
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from debias_ssae.review import Candidate, Piece
from debias_ssae.review.latents_page import latents_html, write_latents_page

pytest.importorskip("jinja2", reason="the page comes from the extra report")
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def candidate(latent: int, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "hookpoint": "embeddings",
        "latent": latent,
        "rank": latent + 1,
        "removed": latent < 2,
        "score": 1.0,
        "toward": "female",
        "effect": 0.25,
        "firing_rate": 0.0123,
        "mass": 0.01,
        "p_value": 0.0,
        "attribute_cosine": 0.5,
        "attribute_pole": "female",
        "target_cosine": None,
        "words": ("she", "hers"),
        "contexts": ((Piece("and ", 0), Piece("she", 4), Piece(" came " + "on " * 30, 0)),),
    }
    return Candidate(**{**values, **changes})


SHOWN = [
    candidate(0),
    candidate(1, effect=None, attribute_cosine=-0.125, target_cosine=0.75, toward=""),
    candidate(2, words=(HOSTILE,), contexts=((Piece(HOSTILE, 2),),)),
    candidate(3, words=(), contexts=(), hookpoint="blocks.3"),
]


def test_what_it_says() -> None:
    page = latents_html(SHOWN, values=("male", "female"), provenance={"model": HOSTILE})
    assert "2 latents that tell male from female are removed; 2 are the next candidates." in page
    for said in (
        "At embeddings",
        "At blocks.3",
        "+0.250",
        "-0.125",
        "Cos to female",
        "undefined",
        "neither",
        "1.23%",
        "&lt; 0.001",
    ):
        assert said in page, said
    assert '<mark class="m4">she</mark>' in page
    assert "fires on none of these texts" in page
    assert "<img" not in page
    assert page.count("<script>") == 1
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("Cos target") == 1


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[str]]]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH; apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    file = write_latents_page(SHOWN, tmp_path_factory.mktemp("page") / "latents.html")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened, events = browser.new_page(), []
        opened.on("console", lambda message: events.append(message.text))
        opened.on("pageerror", lambda error: events.append(str(error)))
        opened.on("request", lambda asked: events.append(asked.url))
        opened.goto(Path(file).as_uri())
        yield opened, events
        browser.close()


@pytest.mark.browser
def test_nothing_is_fetched_and_it_fits_a_phone(page: tuple[Any, list[str]]) -> None:
    opened, events = page
    assert len(events) == 1, events
    assert opened.title() == "Latents to review"
    opened.set_viewport_size({"width": 400, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(page: tuple[Any, list[str]], scheme: str) -> None:
    opened, _ = page
    pytest.importorskip("axe_playwright_python", reason="the package axe-playwright-python is not installed")
    folder = importlib.resources.files("axe_playwright_python")
    axe = next(p for p in folder.iterdir() if p.name == "axe.min.js")
    opened.emulate_media(color_scheme=scheme)
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    opened.evaluate(axe.read_text(encoding="utf-8"))
    serious = [
        v
        for v in opened.evaluate("axe.run()")["violations"]
        if v["impact"] in ("serious", "critical", "moderate")
    ]
    assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]
