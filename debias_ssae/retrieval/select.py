"""From seed texts and a corpus to the subdomain: score (dense, BM25, both), rank, drop what is not new, report."""

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from debias_ssae.core.config import RetrievalConfig, make_config
from debias_ssae.core.errors import InputError, check_seed
from debias_ssae.retrieval.duplicates import drop_near, new_texts
from debias_ssae.retrieval.embedders import embed_texts
from debias_ssae.retrieval.index import CorpusIndex
from debias_ssae.text.checks import check_texts

if TYPE_CHECKING:
    from debias_ssae.model import LanguageModel


@dataclass(frozen=True)
class RetrievedTexts:
    """The texts chosen, best first."""

    texts: list[str]
    corpus_ids: NDArray[np.int64]
    """Position of each text in the corpus."""
    scores: NDArray[np.float32]
    """Mean similarity to the seeds (dense), mean BM25, or reciprocal rank sum (hybrid)."""
    report: dict[str, Any]
    """What was read, dropped and chosen; histogram of the scores, ten samples."""


def bm25_scores(corpus: Sequence[str], seeds: Sequence[str]) -> NDArray[np.float32]:
    """Return the mean BM25 score [n_corpus] over ``seeds``: one sparse product, since BM25 adds up over words.

    Raises InputError where no text of the corpus has a word.
    """
    import bm25s
    from scipy.sparse import csc_array

    tokens = bm25s.tokenize(list(corpus), stopwords="en", show_progress=False)
    if not any(tokens.ids):
        raise InputError("The corpus has no words to index")
    model = bm25s.BM25()
    model.index(tokens, show_progress=False)
    kept = model.scores
    shape = (len(corpus), len(kept["indptr"]) - 1)
    words = bm25s.tokenize(list(seeds), stopwords="en", show_progress=False, return_ids=False)
    weights = np.zeros(shape[1], np.float32)
    for word in (word for seed in words for word in seed):
        if word in model.vocab_dict:
            weights[model.vocab_dict[word]] += 1 / len(words)
    scores = csc_array((kept["data"], kept["indices"], kept["indptr"]), shape=shape)
    return np.asarray(scores @ weights, dtype=np.float32)


def retrieve(
    seeds: Sequence[str],
    corpus: Sequence[str] | CorpusIndex,
    *,
    n_texts: int = 10_000,
    embedder: "str | LanguageModel" = "minilm",
    method: str = "dense",
    held_out: Collection[str] = (),
    near_duplicate: float = 0.95,
    max_seeds: int = 2000,
    max_length: int = 128,
    likely: int | None = None,
    cache_dir: str | Path | None = None,
    device: str = "auto",
    random_state: int | None = None,
) -> RetrievedTexts:
    """Return the ``n_texts`` texts of ``corpus`` nearest to ``seeds``.

    ``method``: "dense" (mean cosine with the seeds), "bm25" (mean BM25), "hybrid" (reciprocal rank fusion of
    both; Cormack et al. 2009). With ``likely``, dense and hybrid embed only the ``likely`` times
    ``n_texts`` texts that BM25 puts first, unless fewer share a word with the seeds. Texts equal or nearly equal
    (cosine above ``near_duplicate``) to a seed, to a text of ``held_out`` or to one already chosen are dropped. More
    than ``max_seeds`` seeds are subsampled; a text nearly equal to one of the others may be chosen. Vectors of the
    corpus are made here and kept under ``cache_dir``; an index brings its own, its embedder and its length. Raises
    InputError for no seeds, an unknown method or entries that are not strings.
    """
    random_state = check_seed(random_state)
    seeds = check_texts(seeds, name="seeds", may_be_empty=True)
    if isinstance(corpus, CorpusIndex):
        embedder, max_length, cache_dir = corpus.about.embedder, corpus.about.max_length, corpus.directory
        corpus = corpus.texts()
    corpus = check_texts(corpus, name="texts of the corpus", may_be_empty=True)
    held_out = check_texts(
        sorted(held_out) if isinstance(held_out, Set) else held_out, name="held_out texts", may_be_empty=True
    )
    asked = {"method": method, "n_texts": n_texts, "near_duplicate": near_duplicate, "likely": likely}
    make_config(RetrievalConfig, asked, "retrieve")
    if not any(seed.strip() for seed in seeds):
        raise InputError("No seed texts: give at least one text of the subdomain")
    candidates = new_texts(corpus, [*seeds, *held_out])
    n_new = len(candidates)
    used = _subsample([seed for seed in seeds if seed.strip()], max_seeds, random_state)

    def embedded(some: Sequence[str], **options: Any) -> NDArray[np.float32]:
        return embed_texts(some, embedder, max_length=max_length, device=device, **options)

    def texts_of(rows: NDArray[np.int64]) -> list[str]:
        return [corpus[i] for i in rows]

    vectors = np.empty((0, 0), np.float32)
    seed_vectors = embedded(used)
    lexical = np.zeros(len(corpus), np.float32)
    rules_out = likely is not None and method == "dense"
    if len(candidates) and (rules_out or method in ("bm25", "hybrid")):
        lexical[candidates] = bm25_scores(texts_of(candidates), used)
    if method != "bm25":
        best = candidates[np.argsort(-lexical[candidates], kind="stable")][: (likely or 0) * n_texts]
        if len(best) and lexical[best[-1]] > 0:
            candidates = np.sort(best)
            vectors = np.zeros((len(corpus), seed_vectors.shape[1]), np.float32)
            vectors[candidates] = embedded(texts_of(candidates), cache_dir=cache_dir)
        else:
            vectors = embedded(list(corpus), cache_dir=cache_dir)
    scores = lexical
    if method != "bm25":
        query = seed_vectors.mean(0)
        scores = np.asarray(vectors @ query)
    if method == "hybrid":
        fused = np.zeros(len(corpus), np.float32)
        fused[candidates] = fuse_ranks(scores[candidates], lexical[candidates])
        scores = fused
    ranked = candidates[np.argsort(-scores[candidates], kind="stable")]

    def vectors_of(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return embedded(texts_of(rows)) if method == "bm25" else vectors[rows]

    known = np.concatenate([seed_vectors, embedded(held_out)]) if held_out else seed_vectors
    chosen, near = drop_near(ranked, vectors_of, known, min(n_texts, len(ranked)), near_duplicate)
    counts = {"method": method, "n_corpus": len(corpus), "n_seeds": len(seeds), "n_seeds_used": len(used)}
    counts |= {"n_exact_duplicates": len(corpus) - n_new, "n_near_duplicates": near}
    texts, found = texts_of(chosen), scores[chosen].astype(np.float32)
    report = counts | {"n_retrieved": len(chosen)} | describe(texts, found)
    return RetrievedTexts(texts, chosen, found, report)


def describe(texts: Sequence[str], scores: NDArray[np.float32]) -> dict[str, Any]:
    """Return what a reviewer wants to see of a selection: a histogram of the scores, ten samples."""
    heights, edges = np.histogram(scores, bins=10) if len(scores) else (np.zeros(0, int), np.zeros(0))
    picks = np.unique(np.linspace(0, len(texts) - 1, 10).round().astype(int)).tolist() if texts else []
    return {
        "score_histogram": {"edges": [float(e) for e in edges], "counts": [int(h) for h in heights]},
        "samples": [{"rank": int(i), "score": float(scores[i]), "text": texts[i][:300]} for i in picks],
    }


def fuse_ranks(*scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of 1 / (60 + rank) over several scores of the same texts (Cormack et al. 2009)."""
    total = np.zeros(len(scores[0]), np.float32)
    for values in scores:
        ranks = np.empty(len(values), np.int64)
        ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
        total += (1 / (60 + ranks)).astype(np.float32)
    return total


def _subsample(texts: list[str], n: int, random_state: int | None) -> list[str]:
    if len(texts) <= n:
        return texts
    picked = np.sort(np.random.default_rng(random_state).choice(len(texts), n, replace=False))
    return [texts[i] for i in picked]
