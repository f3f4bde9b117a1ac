"""Which part of a corpus is worth training on: the texts nearest to a handful of seeds."""

from debias_ssae.retrieval.duplicates import fold as fold
from debias_ssae.retrieval.duplicates import unsaid as unsaid
from debias_ssae.retrieval.duplicates import without as without
from debias_ssae.retrieval.embedders import embed_texts as embed_texts
from debias_ssae.retrieval.embedders import load_embedder as load_embedder
from debias_ssae.retrieval.index import CorpusIndex as CorpusIndex
from debias_ssae.retrieval.select import RetrievedTexts as RetrievedTexts
from debias_ssae.retrieval.select import retrieve as retrieve
