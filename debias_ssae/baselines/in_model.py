"""The edit without an SAE: the words' own tokens are masked inside the model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from torch import Tensor, nn
from tqdm import tqdm

from debias_ssae.baselines.erasers import text_tags
from debias_ssae.core.device import plain_precision
from debias_ssae.model import LanguageModel
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.model.forward import (
    TokenizedTexts,
    clean_texts,
    make_batch,
    run_batch,
    token_batches,
    tokenize,
)
from debias_ssae.model.harvesting import CHUNK_TEXTS, check_max_length
from debias_ssae.model.readout import pool_states
from debias_ssae.text.checks import check_texts
from debias_ssae.text.concept import Concept


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
        tokens = tokenize(model.tokenizer, check_texts(X), check_max_length(model, self.encoder.max_length))
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
        length, readout = (
            check_max_length(model, encoder.max_length),
            model.readout(encoder.pooling, encoder.layer),
        )
        mean = getattr(self, "mean_", None)
        mean = _word_vectors(model).mean(0) if mean is None else mean
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        unique, found = list(place), []
        for start in tqdm(range(0, len(unique), CHUNK_TEXTS), "masked texts", disable=not encoder.verbose):
            chunk = unique[start : start + CHUNK_TEXTS]
            tokens = tokenize(model.tokenizer, chunk, length, prompt=model.prompt)
            # of this copy the marked tokens alone are real
            marked = replace(tokens, special=tokens.special | ~_of_words(concept, chunk, tokens))
            vectors = torch.zeros(len(chunk), len(readout.modes) * model.d_model)
            for sequences in token_batches(tokens.lengths, encoder.token_budget):
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
