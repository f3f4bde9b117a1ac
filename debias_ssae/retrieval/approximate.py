"""Nearest rows through IVF-PQ codes, the candidates compared again exactly."""

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError
from debias_ssae.retrieval.exact import Hits, Vectors, exact_search


def build_approximate(
    index: Vectors,
    *,
    n_lists: int | None = None,
    code_bytes: int = 32,
    n_train: int = 262_144,
    random_state: int = 0,
) -> dict[str, Any]:
    """Train an IVF-PQ index on a sample and add every row; written into the index's folder.

    ``n_lists`` None is four times the square root of the number of rows; ``code_bytes`` is lowered to a divisor
    of the width. Raises InputError for fewer rows than
    the 256 centroids of a code. Returns the settings.
    """
    import faiss

    n = len(index)
    if n < 256:
        raise InputError(f"IVF-PQ needs at least 256 texts, the index has {n}: exact search is fast enough")
    lists = max(1, min(int(4 * np.sqrt(n)) if n_lists is None else n_lists, n // 39 or 1))
    rng = np.random.default_rng(random_state)
    sample = index.vectors(np.sort(rng.choice(n, min(n, n_train), replace=False)))
    code_bytes = max(m for m in range(1, code_bytes + 1) if sample.shape[1] % m == 0)
    quantizer = faiss.IndexFlatIP(sample.shape[1])
    approximate = faiss.IndexIVFPQ(
        quantizer, sample.shape[1], lists, code_bytes, 8, faiss.METRIC_INNER_PRODUCT
    )
    approximate.cp.seed = approximate.pq.cp.seed = random_state
    # faiss warns below 39 training points a centroid; fewer is the caller's choice
    approximate.cp.min_points_per_centroid = approximate.pq.cp.min_points_per_centroid = 1
    approximate.train(sample)
    for _, vectors in index.parts():
        approximate.add(np.ascontiguousarray(vectors))
    settings = {"n_rows": n, "n_lists": lists, "code_bytes": code_bytes}
    target = index.directory / "ivfpq.faiss"
    faiss.write_index(approximate, f"{target}.tmp")
    os.replace(f"{target}.tmp", target)
    (index.directory / "ivfpq.json").write_text(json.dumps(settings), encoding="utf-8")
    return settings


class ApproximateIndex:
    """The IVF-PQ codes of a :class:`CorpusIndex`, memory-mapped; rows added later are compared exactly."""

    def __init__(self, index: Vectors) -> None:
        """Open the codes; raises InputError when they were not built."""
        import faiss

        file = index.directory / "ivfpq.faiss"
        if not file.exists():
            raise InputError(
                f"{index.directory} has no IVF-PQ codes: build them with `retrieve index --ivfpq`"
            )
        self.index = index
        self.settings = json.loads((index.directory / "ivfpq.json").read_text(encoding="utf-8"))
        self._codes: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)

    def search(
        self, queries: NDArray[np.float32], k: int, *, n_candidates: int = 1000, n_probe: int | None = None
    ) -> Hits:
        """Return the ``k`` best of ``n_candidates`` rows a query, compared again by their full vectors.

        ``n_probe`` lists are looked into, by default an eighth of all.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        self._codes.nprobe = max(1, self.settings["n_lists"] // 8) if n_probe is None else n_probe
        _, candidates = self._codes.search(queries, max(k, n_candidates))
        newer = [(start, v) for start, v in self.index.parts() if start >= self.settings["n_rows"]]
        late = exact_search(newer, queries, k)
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for row, (query, near) in enumerate(zip(queries, candidates, strict=True)):
            near = near[near >= 0]
            values = self.index.vectors(near) @ query if len(near) else np.zeros(0, np.float32)
            here = np.concatenate([near, late.ids[row]])
            values = np.concatenate([values, late.scores[row]])
            best = np.argsort(-values, kind="stable")[:k]
            ids[row, : len(best)], scores[row, : len(best)] = here[best], values[best]
        return Hits(ids, scores)

    def recall(self, queries: NDArray[np.float32], k: int = 100, **options: Any) -> float:
        """Return the share of the exact ``k`` nearest rows that :meth:`search` finds."""
        wanted = exact_search(self.index.parts(), queries, k).ids
        found = self.search(queries, k, **options).ids
        shares = [
            len(np.intersect1d(a[a >= 0], b[b >= 0])) / max(1, (a >= 0).sum())
            for a, b in zip(wanted, found, strict=True)
        ]
        return float(np.mean(shares))
