"""Texts to token ids in flat arrays: which tokens are real, where each lies in its text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError


@dataclass(frozen=True)
class TokenizedTexts:
    """Sequences laid end to end; sequence s owns tokens starts[s]:starts[s + 1]."""

    ids: NDArray[np.int64]
    special: NDArray[np.bool_]
    """True where the tokenizer added the token or it is a special one (the unknown one is real)."""
    spans: NDArray[np.int64]
    """Start and end character of each token in its text; zeros where the tokenizer does not know."""
    starts: NDArray[np.int64]
    text_ids: NDArray[np.int64]
    """The text of each sequence."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, special ones included."""
        return np.diff(self.starts)


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return ``texts`` as a list that a tokenizer can read; lone surrogates become "?".

    Raises InputError for a single string and for an entry that is no string (a missing value, say).
    """
    if isinstance(texts, str):
        raise InputError("Expected a sequence of texts, got one string: put it in a list")
    checked = []
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(
                f"Text {i} is {text!r} ({type(text).__name__}), expected a string: drop or fill it"
            )
        checked.append(text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8"))
    return checked


def tokenize(
    tokenizer: Any, texts: Sequence[str], max_length: int, *, window: bool = False
) -> TokenizedTexts:
    """Tokenise ``texts`` with special tokens, at most ``max_length`` tokens a sequence.

    What is longer is cut off, or with ``window`` goes on in further sequences of the same text.
    """
    if not texts:
        empty = np.zeros(0, np.int64)
        return TokenizedTexts(empty, empty.astype(bool), empty.reshape(0, 2), np.zeros(1, np.int64), empty)
    fast = bool(getattr(tokenizer, "is_fast", False))
    if window and not fast:
        raise InputError("Windows over long texts need a fast tokenizer; this one is slow: truncate instead")
    out = tokenizer(
        list(texts),
        add_special_tokens=True,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_special_tokens_mask=True,
        return_offsets_mapping=fast,
        return_overflowing_tokens=window,
    )
    lengths = [len(ids) for ids in out["input_ids"]]
    n = sum(lengths)
    ids = np.fromiter(chain.from_iterable(out["input_ids"]), np.int64, n)
    added = np.fromiter(chain.from_iterable(out["special_tokens_mask"]), bool, n)
    spans = np.zeros((n, 2), np.int64)
    if fast:
        flat = chain.from_iterable(chain.from_iterable(out["offset_mapping"]))
        spans = np.fromiter(flat, np.int64, 2 * n).reshape(n, 2)
    special_ids = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return TokenizedTexts(
        ids=ids,
        special=added | np.isin(ids, sorted(special_ids)),
        spans=spans,
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        text_ids=np.asarray(out["overflow_to_sample_mapping"] if window else range(len(texts)), np.int64),
    )
