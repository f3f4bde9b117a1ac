"""Cards: names by the share of activation mass on whole words, merging, kinds, and the judges."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from debias_ssae import Concept
from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import Activations
from debias_ssae.review import Card, chat_judge, word_list_judge
from debias_ssae.review.cards import FUNCTION, TARGET, Scored, kind_of, make_cards
from debias_ssae.review.discovery import recurrence_of
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.naming import (
    LEVELS,
    WordedRows,
    find_contexts,
    find_phrase,
    find_words,
    naming_words,
    whole_word,
    word_shares,
)


def worded(texts: list[str], pieces: dict[str, list[int]] | None = None) -> WordedRows:
    """Tokens are the words of the texts; ``pieces`` says after how many letters a word is cut."""
    owners, spans = [], []
    for owner, text in enumerate(texts):
        at = 0
        for word in text.split():
            start = text.index(word, at)
            at = start + len(word)
            cuts = [start, *(start + c for c in (pieces or {}).get(word, [])), at]
            for low, high in pairwise(cuts):
                owners.append(owner)
                spans.append((low, high))
    ids = torch.tensor(owners)
    rows = Activations(torch.zeros(len(ids), 2), ids, torch.zeros_like(ids), torch.tensor(spans), len(texts))
    return find_words(texts, rows)


def fires(read: WordedRows, **strengths: float) -> np.ndarray:
    """Activations that each word has."""
    words = np.array(read.words)[read.word_ids]
    return np.array([strengths.get(word, 0.0) for word in words], dtype=np.float32)


def test_a_piece_of_a_word_counts_for_the_whole_word() -> None:
    """The token her of hernia is not the word her."""
    read = worded(["her hernia hurts her", "a hernia"], {"hernia": [3]})
    assert read.words == ("her", "hernia", "hurts", "a")
    fired = np.array([2.0, 0.2, 0, 0, 2.0, 0, 0.2, 0], dtype=np.float32)
    shares = word_shares(read, fired)
    assert shares["her"] == pytest.approx(4 / 4.4)
    assert shares["hernia"] == pytest.approx(0.4 / 4.4)
    assert naming_words(shares) == ["her"]


def test_words_are_weighed_by_strength_and_against_their_base_rate() -> None:
    read = worded(["the cat the dog the cow the end"])
    shares = word_shares(read, fires(read, the=1.0, cat=3.0))
    assert shares == {"cat": pytest.approx(3 / 7), "the": pytest.approx(4 / 7)}
    assert list(shares) == ["cat", "the"], "cat is rarer, so its mass tells more"
    assert word_shares(read, fires(read)) == {}


def test_contexts_mark_whole_words_by_strength() -> None:
    texts = ["the midwives came", "no hit"]
    read = worded(texts, {"midwives": [3, 6]})
    fired = np.zeros(len(read.word_ids), np.float32)
    fired[[1, 2, 4]] = 2.0, 0.4, 0.5
    (context,) = find_contexts(read, fired, n_contexts=3)
    assert [tuple(p) for p in context] == [("the ", 0), ("midwives", LEVELS), (" ", 0), ("came", 1)]
    assert find_contexts(read, np.zeros_like(fired), n_contexts=3) == ()
    read = worded(["alpha beta gamma delta epsilon"])
    (context,) = find_contexts(read, fires(read, gamma=1.0), n_contexts=1, width=6)
    assert "".join(p.text for p in context) == "…beta gamma delta…"


@pytest.mark.parametrize(
    ("span", "word"),
    [((4, 6), "don"), ((8, 9), "t"), ((3, 6), "don"), ((7, 8), "'"), ((0, 0), ""), ((9, 10), "!")],
)
def test_whole_word(span: tuple[int, int], word: str) -> None:
    text = "you don't!"
    start, end = whole_word(text, *span)
    assert text[start:end] == word


TEXTS = [
    "she now lives and stays well in Denver Colorado",
    "he now and then works for long days in wards of surgery",
    "she once saw how the old and kind nurse came here in Denver Colorado",
    "the end",
]
LATENTS: tuple[dict[str, float], ...] = (
    {"she": 1.0},
    {"denver": 2.0},
    {"she": 0.5, "he": 0.1},
    {"colorado": 1.0},
    {"in": 1.0, "the": 1.0},
    {"surgery": 1.0},
    {"he": 1.0},
)


def cards(toward: list[int], **options: Any) -> list[Card]:
    read = worded(TEXTS)
    fired = np.stack([fires(read, **strengths) for strengths in LATENTS], axis=1)
    score = np.linspace(1.0, 0.4, len(LATENTS))
    scored = Scored(score, np.stack([score, -score]), ("nurse", "surgeon"), np.array(toward))
    return make_cards("embeddings", range(len(LATENTS)), scored, fired, read, **options)


def test_latents_that_say_the_same_share_a_card() -> None:
    found = cards([0, 0, 0, 0, 0, 1, 1], labels=np.array([0, 1, 0, 1]), class_words=["nurse", "surgeon"])
    names = {card.name: card for card in found}
    assert names["she"].latents == (0, 2), "the same word"
    assert names["denver · colorado"].latents == (1, 3), "side by side"
    assert names["surgery"].kind == TARGET
    assert names["in · the"].kind == FUNCTION
    assert names["he"].kind == names["she"].kind == ""
    assert [card.share for card in found] == sorted((card.share for card in found), reverse=True)
    assert sum(card.share for card in found) == pytest.approx(1.0)
    assert names["she"].firing_rate == {"nurse": 1.0, "surgeon": 0.5}
    assert names["he"].toward == "surgeon"


@pytest.mark.parametrize(
    ("words", "phrase", "kind"),
    [
        ({"from": 0.9}, "", FUNCTION),
        ({"from": 0.9}, "Sent from my phone", ""),
        ({"from": 0.9}, "from the", FUNCTION),
        ({".": 0.6, "</": 0.3}, "", FUNCTION),
        ({"\N{WHITE SMILING FACE}": 0.9}, "", ""),
        ({"\N{PERSON WITH FOLDED HANDS}": 0.9}, "", ""),
        ({"surgery": 0.8}, "", TARGET),
    ],
)
def test_signs_are_function_words_but_emoji_and_phrases_are_not(
    words: dict[str, float], phrase: str, kind: str
) -> None:
    assert kind_of(words, phrase, ["surgeon"]) == kind


def test_a_phrase_names_what_fires_in_it() -> None:
    ends = [
        f"{'she' if i % 2 else 'he'} works {i} days . She is based in Denver , Colorado ." for i in range(8)
    ]
    read = worded([*ends, "he is old", "in Denver once", "she lives in Colorado"])
    for fired in ({"denver": 1.0, "colorado": 0.9}, {"based": 1.0}, {"colorado": 1.0}):
        assert find_phrase(read, fires(read, **fired)) == "days . She is based in Denver , Colorado"
    assert find_phrase(read, fires(read, he=1.0)) == "", "its neighbours differ"
    few = worded([*ends[:4], "he is old"])
    assert find_phrase(few, fires(few, denver=1.0)) == "", "too few places"
    assert find_phrase(read, fires(read)) == ""
    fired = np.stack(
        [fires(read, **one) for one in ({"based": 1.0}, {"denver": 1.0, "colorado": 1.0})], axis=1
    )
    scored = Scored(np.array([1.0, 0.5]), np.ones((1, 2)), ("nurse",), np.zeros(2, int))
    (card,) = make_cards("embeddings", range(2), scored, fired, read)
    assert card.name.endswith("based in Denver , Colorado")


def test_latents_apart_stay_apart() -> None:
    assert {c.latents for c in cards([0, 0, 1, 0, 0, 1, 1])} >= {(0,), (2,)}, "of two sides"
    assert all(len(c.latents) == 1 for c in cards([0] * 7, merge=False))
    ticked = {c.latents: c.ticked for c in cards([0] * 7, ticked=[0])}
    assert ticked[0,], "what is removed is not merged with what is not"
    assert not ticked[2,]


def test_recurrence_is_the_cosine_with_another_training() -> None:
    sae, other = (SparseAutoencoder(SAEConfig(d_in=7, d_sae=n, k=1), random_state=0) for n in (7, 1))
    sae.W_dec.data = torch.eye(7)
    other.W_dec.data = torch.tensor([[1.0, 0.75, 0, 0, 0, 0, 0]])
    found = cards([0] * 7, merge=False, recurrence=recurrence_of(sae, other, np.arange(7)))
    assert {c.latents[0]: round(c.recurrence, 3) for c in found if c.recurrence} == {0: 0.8, 1: 0.6}


def card(**changes: Any) -> Card:
    values: dict[str, Any] = {
        "name": "she",
        "hookpoint": "embeddings",
        "latents": (1,),
        "words": {"she": 0.45, "the": 0.55},
        "share": 0.1,
        "toward": "nurse",
        "effect": {},
        "firing_rate": {},
        "contexts": (),
    }
    return Card(**{**values, **changes})


def test_a_word_list_ticks_from_two_fifths_of_the_mass() -> None:
    for judge in (word_list_judge(["She", "her"]), word_list_judge(Concept.load("gender"))):
        assert judge(card())
        assert not judge(card(words={"she": 0.35, "the": 0.65}))
        assert judge(card(words={"she": 0.25, "the": 0.5, "her": 0.25}))


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]], list[str]]]:
    """A stub of a chat endpoint: it keeps what it was sent and answers what it is told."""
    asked: list[dict[str, Any]] = []
    answers: list[str] = []

    class Stub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append({"headers": dict(self.headers), **json.loads(body)})
            answer = {"choices": [{"message": {"content": answers.pop(0)}}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stub) as stub:
        thread = threading.Thread(target=stub.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{stub.server_port}/v1/chat/completions", asked, answers
        stub.shutdown()
        thread.join()


def test_a_chat_endpoint_is_told_the_card_and_nothing_else(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url, asked, answers = server
    monkeypatch.setenv("CHAT_KEY", "secret")
    judge = chat_judge(url, "tiny", "Jobs from biographies.", api_key_variable="CHAT_KEY", contexts=1)
    assert "excerpts of your texts are sent to" in caplog.text
    assert "secret" not in caplog.text
    found = cards([0] * 7)[0]
    answers += ["Yes, it is.", "**no**", "perhaps"]
    assert judge(found) is True
    assert judge(found) is False
    (message,) = asked[0]["messages"]
    assert asked[0]["headers"]["Authorization"] == "Bearer secret"
    assert message["content"].startswith("Jobs from biographies.")
    assert message["content"].count("\n- ") == 1
    with pytest.raises(InputError, match="must answer yes or no"):
        judge(found)


def test_endpoints_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="begins with http"):
        chat_judge("file:///etc/passwd", "m", "q")
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(InputError, match="NO_KEY is not set"):
        chat_judge("http://127.0.0.1:9/", "m", "q", api_key_variable="NO_KEY")
    with pytest.raises(InputError, match="no usable answer"):
        chat_judge("http://127.0.0.1:9/", "m", "q", timeout=2)(card())
