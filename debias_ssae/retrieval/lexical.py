"""BM25 scores of a corpus against many seeds at once (bm25s keeps the scores of each word and text ready)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError


class LexicalIndex:
    """BM25 over ``corpus``; the seeds' mean score is one sparse product, since BM25 adds up over words."""

    def __init__(self, corpus: Sequence[str], *, stopwords: str = "en") -> None:
        """Index ``corpus``; raises InputError where no text has a word."""
        import bm25s
        from scipy.sparse import csc_array

        self._stopwords = stopwords
        tokens = bm25s.tokenize(list(corpus), stopwords=stopwords, show_progress=False)
        if not any(tokens.ids):
            raise InputError("The corpus has no words to index")
        model = bm25s.BM25()
        model.index(tokens, show_progress=False)
        self._vocabulary: dict[str, int] = model.vocab_dict
        kept = model.scores
        shape = (len(corpus), len(kept["indptr"]) - 1)
        self._scores = csc_array((kept["data"], kept["indices"], kept["indptr"]), shape=shape)

    def scores(self, seeds: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean BM25 score [n_corpus] over ``seeds``."""
        import bm25s

        words = bm25s.tokenize(list(seeds), stopwords=self._stopwords, show_progress=False, return_ids=False)
        weights = np.zeros(self._scores.shape[1], np.float32)
        for seed in words:
            for word in seed:
                if word in self._vocabulary:
                    weights[self._vocabulary[word]] += 1 / len(words)
        return np.asarray(self._scores @ weights, dtype=np.float32)
