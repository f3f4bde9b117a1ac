"""What the SAEs of a debiaser are trained on."""

from pathlib import Path

import numpy as np
import pytest
from small_debiaser import CONFIG, make_texts

from debias_ssae.debiaser import specialise
from debias_ssae.debiaser.specialise import learn_ssae
from debias_ssae.encoder import ActivationEncoder
from debias_ssae.retrieval.duplicates import fold


class StopError(Exception):
    """Everything wanted has been seen."""


def test_no_wording_of_a_held_out_text_is_in_the_general_saes_pool(
    small_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ActivationEncoder(str(small_encoder), dtype="float32").language_model
    texts, corpus = make_texts(5), make_texts(60)[5:]
    held_out = [text.upper() + "!" for text in corpus[::7]]
    pools = []

    def train_general_sae(model: object, pool: list[str], *_: object, **__: object) -> None:
        pools.append(pool)
        raise StopError

    monkeypatch.setattr(specialise, "train_general_sae", train_general_sae)
    with pytest.raises(StopError):
        learn_ssae(model, texts, "embeddings", CONFIG, corpus=corpus, held_out=held_out)
    folded = {fold(text) for text in held_out}
    assert pools[0] == [text for text in corpus if fold(text) not in folded]
    assert 0 < len(np.unique(pools[0])) < len(np.unique(corpus))
