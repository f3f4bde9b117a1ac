"""The page of cards: escaped, self-contained; in a real Chromium it ticks, filters by keyboard and saves the file."""

import importlib.resources
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from debias_ssae import Choices
from debias_ssae.core.config import SAEConfig
from debias_ssae.review import Card, WhatIf
from debias_ssae.review.cards import FUNCTION, TARGET, to_choices
from debias_ssae.review.page import cards_html, plot_shares
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.naming import Piece

pytest.importorskip("jinja2", reason="the page comes from the extra report")
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
SAES = {
    h: SparseAutoencoder(SAEConfig(d_in=4, d_sae=16, k=2), random_state=0) for h in ("embeddings", "blocks.3")
}


def card(name: str, *latents: int, **changes: Any) -> Card:
    values: dict[str, Any] = {
        "name": name,
        "hookpoint": "embeddings",
        "latents": latents,
        "words": {name: 0.75, "rare": 0.05},
        "share": 0.125,
        "toward": "nurse",
        "effect": {"nurse": 0.5, "surgeon": -0.25},
        "firing_rate": {"nurse": 0.8, "surgeon": 0.1},
        "contexts": ((Piece("and ", 0), Piece(name, 4), Piece(" came " + "on " * 30, 0)),) * 3,
        "recurrence": 0.71,
        "what_if": WhatIf(0.91, 0.98, 0.07),
    }
    return Card(**{**values, **changes})


CARDS = [
    card("she", 0, 1, hints=("its words are unrelated",)),
    card("surgery", 2, kind=TARGET, toward="surgeon"),
    card(HOSTILE, 3, hookpoint="blocks.3", toward=HOSTILE, effect={HOSTILE: 1.0}),
    card("the", 4, kind=FUNCTION),
    card("many words", 5, words={}, contexts=(), what_if=None, recurrence=None),
]
EARLIER = to_choices([card("his", 9)], [True], SAES)
CHOICES = EARLIER | to_choices(CARDS, [False] * len(CARDS), SAES)
PAGE = cards_html(
    CARDS,
    CHOICES,
    eyebrow="Round 2",
    lede="A lede.",
    verdict="Look first at: she.",
    provenance={"model": HOSTILE},
)


def test_what_it_says() -> None:
    for said in (
        "75%",
        "12.5%",
        "accuracy 98.0% to 91.0%, 7.0% of predictions change",
        "its words are unrelated",
        "0.71",
    ):
        assert said in PAGE, said
    assert '<mark class="m4">she</mark>' in PAGE
    assert "fires on none of these texts" in PAGE
    assert "<img" not in PAGE
    assert PAGE.count("<script>") == 1
    assert "http://" not in PAGE.replace("http://www.w3.org", "")
    assert PAGE.count('<article class="card latent"') == len(CARDS)
    assert PAGE.count('<details class="group"') == 2
    assert "can be mailed" not in PAGE
    assert "<code>--choices</code>" in PAGE


def test_small_cards_are_folded_and_a_sign_is_said() -> None:
    small = WhatIf(0.98, 0.98, 0.006)
    cards = [
        card("night", 0, share=-0.024, effect={"nurse": -0.5, "surgeon": 0.1}),
        card("day", 1, what_if=small, share=0.009),
        card("she", 2, what_if=small, hints=("looks odd",)),
        card("dawn", 3, what_if=small, share=-0.02),
    ]
    page = cards_html(cards, to_choices(cards, [False] * 4, SAES), eyebrow="", lede="")
    shown, folded = page.split('<details class="group"')
    assert 'id="card-0"' in shown
    assert 'id="card-2"' in shown, "what is looked at first stays in sight"
    assert 'id="card-3"' in shown, "much of the decision, though no prediction changes"
    assert 'id="card-1"' in folded
    assert "those that say the same as a card that you ticked" in folded
    assert "<b>-2.4%</b> of the decision, works against <b>nurse</b>" in shown
    assert 'style="width:1%"' in folded, "the bar is full at 100%"
    alone = cards_html(cards[1:], to_choices(cards[1:], [False] * 3, SAES), eyebrow="", lede="")
    assert '<details class="group"' not in alone, "where no card matters by itself, none is hidden for it"


def test_plot_names_and_colours() -> None:
    pytest.importorskip("matplotlib", reason="plots come from the extra report")
    figure = plot_shares(CARDS[:2], ("nurse", "surgeon"))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["she", "surgery"]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"nurse", "surgeon"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH; apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[tuple[Any, list[str]]]:
    file = tmp_path / "shortcuts.html"
    file.write_text(PAGE, encoding="utf-8")
    opened, events = browser.new_page(), []
    opened.on("console", lambda message: events.append(message.text))
    opened.on("pageerror", lambda error: events.append(str(error)))
    opened.on("request", lambda asked: events.append(asked.url))
    opened.goto(file.as_uri())
    yield opened, events
    opened.close()


@pytest.mark.browser
def test_nothing_is_fetched_and_it_fits_a_phone(page: tuple[Any, list[str]]) -> None:
    opened, events = page
    assert len(events) == 1, events
    assert opened.title() == "What the decision rests on"
    opened.set_viewport_size({"width": 400, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.browser
def test_ticks_are_saved_as_the_file_that_is_read(page: tuple[Any, list[str]], tmp_path: Path) -> None:
    opened, events = page
    assert opened.locator("[data-folder]").text_content() == f"{tmp_path}/"
    opened.get_by_role("checkbox", name="must not count").first.check()
    assert opened.locator("output").text_content() == "1 card ticked: 2 latents, 12.5%"
    with opened.expect_download() as download:
        opened.get_by_role("button", name="Save choices.yaml").click()
    assert download.value.suggested_filename == "choices.yaml"
    saved = tmp_path / "saved.yaml"
    download.value.save_as(saved)
    choices = Choices.load(saved, SAES)
    assert {h: ids.tolist() for h, ids in choices.ids.items()} == {"embeddings": [9, 0, 1]}
    assert choices.cards["blocks.3"] == CHOICES.cards["blocks.3"]
    assert not [event for event in events[1:] if not event.startswith("blob:")], events


@pytest.mark.browser
def test_the_keyboard_filters_moves_and_ticks(page: tuple[Any, list[str]]) -> None:
    opened, _ = page
    opened.keyboard.press("/")
    opened.keyboard.type("surg")
    shown = opened.locator("article.latent:visible h3")
    assert [text.split()[-1] for text in shown.all_text_contents()] == ["surgery"], "its folded group opens"
    opened.keyboard.press("Enter")
    opened.keyboard.press("x")
    assert opened.locator("output").text_content().startswith("1 card ticked")
    opened.keyboard.press("/")
    opened.keyboard.press("Escape")
    assert opened.locator("article.latent:visible").count() >= 3
    opened.get_by_role("checkbox", name="ticked only").check()
    assert opened.locator("article.latent:visible").count() == 1
    opened.keyboard.press("/")
    opened.keyboard.type("nothing like it")
    assert opened.get_by_text("No card matches the filter.").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(page: tuple[Any, list[str]], scheme: str) -> None:
    opened, _ = page
    pytest.importorskip("axe_playwright_python", reason="the package axe-playwright-python is not installed")
    folder = importlib.resources.files("axe_playwright_python")
    axe = next(p for p in folder.iterdir() if p.name == "axe.min.js")
    opened.emulate_media(color_scheme=scheme)
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    opened.get_by_role("checkbox", name="must not count").first.check()
    opened.evaluate(axe.read_text(encoding="utf-8"))
    serious = [
        v
        for v in opened.evaluate("axe.run()")["violations"]
        if v["impact"] in ("serious", "critical", "moderate")
    ]
    assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]
