"""Methods told words: a filter, a mask inside the model, swapped copies for the head, similarities to task words."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import normalize
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from debias_ssae.baselines.erasers import text_tags
from debias_ssae.baselines.heads import LogisticHead
from debias_ssae.core.device import plain_precision
from debias_ssae.core.errors import InputError
from debias_ssae.core.steps import bar
from debias_ssae.model import LanguageModel
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.model.forward import (
    TokenizedTexts,
    clean_texts,
    make_batch,
    run_batch,
    token_batches,
    tokens_of,
)
from debias_ssae.model.harvesting import CHUNK_TEXTS
from debias_ssae.model.readout import pool_states
from debias_ssae.text.checks import check_texts, read_matrix
from debias_ssae.text.concept import Concept


@dataclass(eq=False, repr=False)
class TextScrubber(TransformerMixin, BaseEstimator):
    """Replace the words that show the attribute by neutral ones: the filter every debiaser has to beat."""

    concept: Any = "gender"
    """Whose words are replaced: a shipped name, a path, or a Concept."""
    _: KW_ONLY
    optional: tuple[str, ...] = ()
    """Optional sections of the concept; ``("names",)`` scrubs first names as well."""

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Load the concept; nothing is learnt from ``X``."""
        self.concept_ = Concept.load(self.concept, optional=self.optional)
        return self

    def transform(self, X: Any) -> list[str]:
        """Return the texts without the concept's words, in order."""
        if not hasattr(self, "concept_"):
            self.fit()
        return [self.concept_.scrub(text) for text in check_texts(X)]

    def __sklearn_tags__(self) -> Tags:
        return text_tags(super().__sklearn_tags__(), requires_fit=False)


def augment_with_counterfactuals(
    texts: Sequence[str], y: Any, concept: Concept
) -> tuple[list[str], np.ndarray]:
    """Add to each text its copy with the attribute's words swapped, with the same target; return texts and targets.

    Counterfactual data augmentation (Lu et al. 2020, arXiv 1807.11714): the texts come first, as they are, then
    the copies of those that hold a word of the concept. Raises InputError when lengths differ or none does.
    """
    texts, y = check_texts(texts), np.asarray(y)
    if len(y) != len(texts):
        raise InputError(f"y has {len(y)} rows, but there are {len(texts)} texts; they must agree")
    swapped = {i: copy for i, text in enumerate(texts) if (copy := concept.counterfactual(text)) is not None}
    if not swapped:
        raise InputError(f"none of the {len(texts)} texts holds a word of the concept {concept.name!r}")
    return [*texts, *swapped.values()], np.concatenate([y, y[list(swapped)]])


@dataclass(eq=False, repr=False)
class AugmentedHead(ClassifierMixin, BaseEstimator):
    """A logistic head that learns from texts and from their copies with the attribute's words swapped."""

    encoder: ActivationEncoder
    concept: Any = "gender"
    """A shipped name, a path, or a Concept."""
    _: KW_ONLY
    random_state: int = 0
    """Of the folds in which C is chosen."""

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on texts and classes; no attribute label is read. Raises InputError as the augmentation does."""
        concept = Concept.load(self.concept)
        texts, labels = augment_with_counterfactuals(X, y, concept)
        self.head_ = LogisticHead(random_state=self.random_state).fit(self.encoder.encode(texts), labels)
        self.classes_, self.C_ = self.head_.classes_, self.head_.C_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return class labels ``(n,)``."""
        check_is_fitted(self)
        return self.head_.predict(self.encoder.encode(check_texts(X)))

    def __sklearn_tags__(self) -> Tags:
        return text_tags(super().__sklearn_tags__())


HOSPITAL_WORDS = (
    "surgery", "operation", "incision", "transplant", "orthopedic", "board certified", "residency", "fellowship",
    "operating room", "surgical technique", "bedside", "patient care", "family practice", "nursing school", "clinic",
    "health education", "pediatrics", "medication", "intensive care unit", "home care",
)  # fmt: skip
"""Twenty words for surgeon against nurse, from general knowledge; other tasks need their own."""


def hospital_words(classes: Collection[str]) -> tuple[str, ...]:
    """These words where the task is theirs, else none."""
    return HOSPITAL_WORDS if set(classes) == {"nurse", "surgeon"} else ()


@dataclass(eq=False, repr=False)
class ConceptBottleneck(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Cosine similarity of a representation to each of a few words' representations.

    The baseline of SHIFT (Marks et al. 2024, arXiv 2403.19647): words that are about the task and say nothing
    of the attribute; any classifier on top.
    """

    encoder: ActivationEncoder
    """It made the rows and encodes the words."""
    words: Sequence[str] = HOSPITAL_WORDS
    """Twenty in the paper."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Encode the words and centre on the training mean. Raises InputError for another width than ``X``'s."""
        X = read_matrix(self, X, dtype=[np.float64, np.float32])
        vectors = self.encoder.encode(check_texts(list(self.words)))
        if vectors.shape[1] != X.shape[1]:
            raise InputError(f"X has {X.shape[1]} columns, but the encoder gives {vectors.shape[1]}")
        self.center_ = X.mean(axis=0)
        self.word_vectors_ = normalize(vectors - vectors.mean(axis=0)).astype(X.dtype)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return similarities ``(n, n_words)``."""
        check_is_fitted(self)
        X = read_matrix(self, X, dtype=[np.float64, np.float32], reset=False)
        return normalize(X - self.center_) @ self.word_vectors_.T

    @property
    def _n_features_out(self) -> int:
        return len(self.word_vectors_)


@dataclass(eq=False, repr=False)
class TokenMask(TransformerMixin, BaseEstimator):
    """Encode texts with every token of a concept's words replaced by the mean token embedding.

    A token counts when it overlaps a word that the concept finds in its context, so titles and possessives are
    told apart as in scrubbing. The mean is over the tokens of the texts given to fit; without fit, over the
    vocabulary. Positions are kept, unlike in scrubbing.
    """

    encoder: ActivationEncoder
    """Its layer and pooling are used, its cache is not."""
    concept: Any = "gender"
    """A shipped name, a path, or a Concept."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the mean embedding of the texts' real tokens."""
        model = self.encoder.language_model
        tokens = tokens_of(model, check_texts(X))
        counts = np.bincount(tokens.ids[~tokens.special], minlength=len(_word_vectors(model)))
        weights = torch.as_tensor(counts / max(counts.sum(), 1), dtype=torch.float32)
        self.mean_ = weights.to(model.device) @ _word_vectors(model)[: len(weights)]
        return self

    @plain_precision()
    def transform(self, X: Any) -> np.ndarray:
        """Return representations ``(n_texts, d)`` in float32."""
        texts, encoder = clean_texts(check_texts(X)), self.encoder
        model, concept = encoder.language_model, Concept.load(self.concept)
        model.check_spans()
        readout = model.readout(encoder.pooling, encoder.layer)
        mean = getattr(self, "mean_", None)
        mean = _word_vectors(model).mean(0) if mean is None else mean
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        unique, found = list(place), []
        with bar("masked texts", range(0, len(unique), CHUNK_TEXTS)) as drawn:
            for start in drawn:
                chunk = unique[start : start + CHUNK_TEXTS]
                tokens = tokens_of(model, chunk)
                # of this copy the marked tokens alone are real
                marked = replace(tokens, special=tokens.special | ~_of_words(concept, chunk, tokens))
                vectors = torch.zeros(len(chunk), len(readout.modes) * model.d_model)
                for sequences in token_batches(tokens.lengths, model.token_budget):
                    batch = make_batch(model, tokens, sequences)
                    with _masked(model, make_batch(model, marked, sequences).real, mean):
                        run_batch(model, batch, [encoder.layer], {})
                    pooled = pool_states(batch.states[encoder.layer], batch.real, batch.attention, readout)
                    vectors[torch.from_numpy(sequences)] = pooled.cpu()
                found.append(readout.finish(vectors).numpy())
        return np.concatenate(found)[[place[text] for text in texts]]

    def __sklearn_tags__(self) -> Tags:
        return text_tags(super().__sklearn_tags__(), requires_fit=False)


def _word_vectors(model: LanguageModel) -> Tensor:
    """What the embedding layer gives for each token: some models scale their rows there."""
    layer: Any = model.module.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        return layer(torch.arange(len(layer.weight), device=layer.weight.device)).float()


def _of_words(concept: Concept, texts: Sequence[str], tokens: TokenizedTexts) -> np.ndarray:
    """Which tokens overlap a word of the concept ``[n_tokens]``."""
    marked = np.zeros(len(tokens.ids), dtype=bool)
    for i, text in enumerate(texts):
        own = slice(tokens.starts[i], tokens.starts[i + 1])
        spans = tokens.spans[own]
        for word in concept.find(text):
            marked[own] |= (spans[:, 0] < word.end) & (spans[:, 1] > word.start)
    return marked


@contextmanager
def _masked(model: LanguageModel, mask: Tensor, mean: Tensor) -> Iterator[None]:
    """While this lasts, the model's word embedding gives ``mean`` at the positions of ``mask [b, t]``."""

    def masked(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.where(mask[:, :, None], mean.to(output.dtype), output)

    layer: Any = model.module.get_input_embeddings()  # type: ignore[operator]
    handle = layer.register_forward_hook(masked)
    try:
        yield
    finally:
        handle.remove()
