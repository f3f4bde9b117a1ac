"""Names of latents."""

import re

import numpy as np
import torch

from debias_ssae.core.config import SAEConfig
from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.naming import cut_out, find_words, name_latents


def test_latents_that_say_the_same_share_one_name() -> None:
    """Two latents fire on the same word, a third on another."""
    texts = ["she runs", "he runs", "she sleeps", "he sleeps"]
    spans = [[(0, 3), (4, 8)], [(0, 2), (3, 7)], [(0, 3), (4, 10)], [(0, 2), (3, 9)]]
    offsets = torch.tensor([span for text in spans for span in text])
    x = torch.zeros(8, 4)
    x[0, 0] = x[4, 0] = x[0, 1] = x[4, 1] = 1.0
    x[2, 2] = x[6, 2] = 1.0
    owners = torch.arange(4).repeat_interleave(2)
    rows = Activations(x, owners, torch.arange(8) % 2, offsets, 4)
    sae = SparseAutoencoder(SAEConfig(d_in=4, d_sae=4, k=4, architecture="topk"))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(4))
        sae.W_dec.copy_(torch.eye(4))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    names = name_latents(sae, rows, texts, [0, 1, 2])
    assert names == ["she", "she", "he"]


def test_words_on_which_latents_fire_are_cut_out_with_what_stands_close_between_them() -> None:
    texts = [
        "After years in the army I am now based in Denver, Colorado, for work.",
        "in Denver one two three four five six Denver",
        "nothing here",
        "I work. She is based in Denver, Colorado. I rest.",
    ]
    spans = [[(m.start(), m.end()) for m in re.finditer(r"\w+|[^\w\s]", text)] for text in texts]
    owners = torch.arange(4).repeat_interleave(torch.tensor([len(found) for found in spans]))
    offsets = torch.tensor([span for found in spans for span in found])
    n = len(offsets)
    rows = Activations(torch.zeros(n, 1), owners, torch.zeros(n, dtype=torch.long), offsets, 4)
    words = [texts[owner][start:end] for owner, (start, end) in zip(owners, offsets, strict=True)]
    fired = np.isin(words, ["based", "Denver", "Colorado"]).astype(float)
    left = cut_out(find_words(texts, rows), fired)
    assert left[:3] == [
        "After years in the army I am now , for work.",
        "in  one two three four five six",
        texts[2],
    ]
    assert left[3] == "I work. I rest."  # of a sentence of which little is left nothing stays
    assert cut_out(find_words(texts, rows), np.zeros(n)) == texts
