"""The SSAE's edit without an SAE: the listed words' token embeddings replaced by a mean embedding."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from torch import Tensor, nn

from debias_ssae.model import LanguageModel, embed
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.model.forward import tokenize
from debias_ssae.model.harvesting import check_max_length
from debias_ssae.text.checks import check_texts
from debias_ssae.text.concept import Concept

_CHUNK = 2048


class TokenMask(TransformerMixin, BaseEstimator):
    """Encode texts with every token of a concept's words replaced by the mean token embedding.

    A token counts when it overlaps a word that the concept finds in its context, so titles and possessives are
    told apart as in scrubbing. The mean is over the tokens of the texts given to fit; without fit, over the
    vocabulary. Positions are kept, unlike in scrubbing.

    Parameters
    ----------
    encoder : ActivationEncoder
        Its layer, pooling and edits are used, its cache is not.
    concept : str, path or Concept, default="gender"
    """

    needs_attribute_at_predict = False

    def __init__(self, encoder: ActivationEncoder, concept: Any = "gender") -> None:
        self.encoder = encoder
        self.concept = concept

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the mean embedding of the texts' real tokens."""
        model = self.encoder.language_model
        tokens = tokenize(model.tokenizer, check_texts(X), check_max_length(model, self.encoder.max_length))
        counts = np.bincount(tokens.ids[~tokens.special], minlength=len(_word_vectors(model)))
        weights = torch.as_tensor(counts / max(counts.sum(), 1), dtype=torch.float32)
        self.mean_ = weights.to(model.device) @ _word_vectors(model)[: len(weights)]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return representations ``(n_texts, d_model)`` in float32."""
        texts = check_texts(X)
        encoder, model = self.encoder, self.encoder.language_model
        model.check_spans()
        concept = self.concept if isinstance(self.concept, Concept) else Concept.load(self.concept)
        mean = getattr(self, "mean_", None)
        mean = _word_vectors(model).mean(0) if mean is None else mean
        out = np.zeros((len(texts), model.d_model), np.float32)
        for rows, masks in _rounds(texts, concept, model, check_max_length(model, encoder.max_length)):
            with _masked(model, masks, mean):
                out[rows] = embed(
                    model,
                    [texts[i] for i in rows],
                    layer=encoder.layer,
                    pooling=encoder.pooling,
                    edits=encoder.edits,
                    max_length=encoder.max_length,
                    token_budget=encoder.token_budget,
                    progress=encoder.verbose,
                )
        return out

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags


def token_mask(
    encoder: ActivationEncoder,
    texts: Sequence[str],
    concept: Concept,
    *,
    reference: Sequence[str] | None = None,
) -> np.ndarray:
    """Return representations of ``texts`` with the concept's words masked; see TokenMask.

    ``reference`` are the texts whose mean token embedding stands in; None takes the vocabulary's mean.
    """
    mask = TokenMask(encoder, concept)
    if reference is not None:
        mask.fit(reference)
    return mask.transform(texts)


def _word_vectors(model: LanguageModel) -> Tensor:
    """What the embedding layer gives for each token: some models scale their rows there."""
    layer: Any = model.module.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        return layer(torch.arange(len(layer.weight), device=layer.weight.device)).float()


def _rounds(
    texts: Sequence[str], concept: Concept, model: LanguageModel, length: int
) -> Iterator[tuple[list[int], dict[bytes, Tensor]]]:
    """Yield rows and the masks of their token sequences, keyed by the sequence.

    Two texts may have the same tokens but not the same words (an uncased model sees "Ms" and "MS" alike): they
    come in different rounds.
    """
    pending: list[tuple[int, bytes, np.ndarray]] = []
    for start in range(0, len(texts), _CHUNK):
        chunk = [text.encode("utf-8", "replace").decode() for text in texts[start : start + _CHUNK]]
        tokens = tokenize(model.tokenizer, chunk, length)
        for i, text in enumerate(chunk):
            own = slice(tokens.starts[i], tokens.starts[i + 1])
            spans = tokens.spans[own]
            marked = np.zeros(len(spans), dtype=bool)
            for word in concept.swap_spans(text):
                marked |= (spans[:, 0] < word.end) & (spans[:, 1] > word.start)
            pending.append((start + i, _key(tokens.ids[own], model), marked & ~tokens.special[own]))
    while pending:
        rows: list[int] = []
        masks: dict[bytes, Tensor] = {}
        later = []
        for row, key, marked in pending:
            known = masks.setdefault(key, torch.from_numpy(marked))
            if np.array_equal(known.numpy(), marked):
                rows.append(row)
            else:
                later.append((row, key, marked))
        yield rows, masks
        pending = later


def _key(ids: np.ndarray, model: LanguageModel) -> bytes:
    """The sequence without the padding at its end."""
    pad = model.tokenizer.pad_token_id
    kept = np.flatnonzero(ids != (0 if pad is None else pad))
    return ids[: kept[-1] + 1 if len(kept) else 0].astype(np.int64).tobytes()


@contextmanager
def _masked(model: LanguageModel, masks: dict[bytes, Tensor], mean: Tensor) -> Iterator[None]:
    """While this lasts, the model's word embedding gives ``mean`` at the masked positions."""

    def replace(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output.clone()
        for row, ids in enumerate(args[0].cpu().numpy()):
            mask = masks[_key(ids, model)].to(output.device)
            output[row, : len(mask)][mask] = mean.to(output.dtype)
        return output

    layer: Any = model.module.get_input_embeddings()  # type: ignore[operator]
    handle = layer.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
