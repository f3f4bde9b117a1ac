"""From seed texts and a corpus to the subdomain: score, rank, drop what is not new."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from debias_ssae.exceptions import InputError
from debias_ssae.retrieval.duplicates import drop_near, new_texts
from debias_ssae.retrieval.embedders import embed_texts


@dataclass(frozen=True)
class RetrievedTexts:
    """The texts chosen, best first."""

    texts: list[str]
    corpus_ids: NDArray[np.int64]
    """Position of each text in the corpus."""
    scores: NDArray[np.float32]
    """Mean similarity to the seeds (dense)."""
    report: dict[str, Any]
    """Counts of what was read, dropped and chosen."""


def retrieve(
    seeds: Sequence[str],
    corpus: Sequence[str],
    *,
    n_texts: int = 10_000,
    embedder: str = "minilm",
    method: str = "dense",
    held_out: Collection[str] = (),
    near_duplicate: float = 0.95,
    max_seeds: int = 2000,
    max_length: int = 128,
    cache_dir: str | Path | None = None,
    random_state: int | None = None,
    progress: bool = False,
) -> RetrievedTexts:
    """Return the ``n_texts`` texts of ``corpus`` nearest to ``seeds``.

    The score of a text is its mean cosine with the seeds. Texts equal or nearly equal (cosine above
    ``near_duplicate``) to a seed, to a text of ``held_out`` or to one already chosen are dropped. More than
    ``max_seeds`` seeds are subsampled. Corpus vectors are kept under ``cache_dir``. Raises InputError for no
    seeds, an unknown method or entries that are no strings.
    """
    seeds, corpus, held_out = check_strings(seeds, "seeds"), check_strings(corpus, "corpus"), list(held_out)
    if method != "dense":
        raise InputError(f"Unknown method {method!r}: give dense")
    if not any(seed.strip() for seed in seeds):
        raise InputError("No seed texts: give at least one text of the subdomain")
    candidates = new_texts(corpus, [*seeds, *held_out])
    chosen_seeds = _subsample([s for s in seeds if s.strip()], max_seeds, random_state)

    def vectors_of(texts: Sequence[str], bar: bool = False) -> NDArray[np.float32]:
        return embed_texts(texts, embedder, max_length=max_length, cache_dir=cache_dir, progress=bar)

    vectors = vectors_of(corpus, progress)
    seed_vectors = vectors_of(chosen_seeds)
    scores = vectors @ seed_vectors.mean(0)
    ranked = candidates[np.argsort(-scores[candidates], kind="stable")]
    known = np.concatenate([seed_vectors, vectors_of(held_out)]) if held_out else seed_vectors
    kept, near = drop_near(ranked, vectors, known, min(n_texts, len(ranked)), near_duplicate)
    report = {
        "n_corpus": len(corpus),
        "n_seeds": len(seeds),
        "n_seeds_used": len(chosen_seeds),
        "n_exact_duplicates": len(corpus) - len(candidates),
        "n_near_duplicates": near,
        "n_retrieved": len(kept),
    }
    return RetrievedTexts([corpus[i] for i in kept], kept, scores[kept].astype(np.float32), report)


def check_strings(texts: Sequence[str], what: str) -> list[str]:
    """Return ``texts`` as a list; raises InputError for one string and for entries that are no strings."""
    if isinstance(texts, str):
        raise InputError(f"{what} is one string, expected a sequence of texts: put it in a list")
    checked = list(texts)
    for i, text in enumerate(checked):
        if not isinstance(text, str):
            raise InputError(f"{what}[{i}] is {text!r} ({type(text).__name__}), expected a string")
    return checked


def _subsample(texts: list[str], n: int, random_state: int | None) -> list[str]:
    if len(texts) <= n:
        return texts
    picked = np.sort(np.random.default_rng(random_state).choice(len(texts), n, replace=False))
    return [texts[i] for i in picked]
