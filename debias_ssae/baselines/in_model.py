"""Edits inside the model without an SAE: LEACE after every block, single neurons, the words' own tokens."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from debias_ssae.baselines.erasers import classes_of, read_attribute, text_tags
from debias_ssae.core.errors import InputError
from debias_ssae.erase import fit_leace
from debias_ssae.model import LanguageModel, embed, harvest
from debias_ssae.model.encoder import ActivationEncoder, Edit
from debias_ssae.model.forward import tokenize
from debias_ssae.model.harvesting import check_max_length
from debias_ssae.model.language_model import check_hookpoints
from debias_ssae.selection import class_conditional_contrast, encode_attribute
from debias_ssae.text.checks import check_texts
from debias_ssae.text.concept import Concept

_CHUNK = 2048


@dataclass(frozen=True)
class LinearEdit:
    """An edit of activations at one hookpoint: ``x - (x - center) read^T write``."""

    read: Tensor
    write: Tensor
    center: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the edited activations ``[n, d]``."""
        read, write, center = (part.to(x.device, x.dtype) for part in (self.read, self.write, self.center))
        return x - (x - center) @ read.T @ write

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the edit, for caches of what comes out of an edited model."""
        digest = hashlib.sha256()
        for part in (self.read, self.write, self.center):
            digest.update(np.ascontiguousarray(part.numpy()).tobytes())
        return f"linear-edit:{digest.hexdigest()}"


class _EditedEncoder(TransformerMixin, BaseEstimator):
    """What the edits fitted on labels share: ``fit`` sets ``edits_``."""

    encoder: ActivationEncoder
    edits_: Mapping[str, Edit]

    def transform(self, X: Any) -> np.ndarray:
        """Return representations ``(n_texts, d_model)``; the attribute is not needed."""
        check_is_fitted(self)
        return self.encoder.encode(check_texts(X), self.edits_)

    def __sklearn_tags__(self) -> Tags:
        return text_tags(super().__sklearn_tags__())


@dataclass(eq=False, repr=False)
class BlockErasure(_EditedEncoder):
    """Concept scrubbing: LEACE inside the model, at every block in turn (Belrose et al. 2023, section 6).

    ``edits_`` are in the order of the pass; each was fitted with those before it in place.
    """

    encoder: ActivationEncoder
    _: KW_ONLY
    hookpoints: Sequence[str] | None = None
    """By default the embeddings and every block's output that the representation comes from."""
    conditional: bool = False
    """Make the groups' means equal inside each class of ``y``."""

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Fit on the token activations of texts; every token has its text's attribute.

        Raises InputError as LEACE does, and for a hookpoint that is unknown.
        """
        texts, model = check_texts(X), self.encoder.language_model
        z, _ = read_attribute(sensitive_features, len(texts), "BlockErasure")
        if y is not None and len(y) != len(texts):
            raise InputError(f"y has {len(y)} rows, but there are {len(texts)} texts; they must agree")
        labels = classes_of(y, self.conditional)
        known = np.flatnonzero(z >= 0)
        found: dict[str, LinearEdit] = {}
        for hookpoint in self._ordered(model):
            options = {"edits": found, **self.encoder.limits}
            rows = harvest(model, [texts[i] for i in known], hookpoint, **options)
            owner = known[rows.text_ids.numpy()]
            fitted = fit_leace(rows.x.double().numpy(), z[owner], None if labels is None else labels[owner])
            parts = (fitted.read, fitted.write, fitted.center)
            found[hookpoint] = LinearEdit(*(torch.from_numpy(part).float() for part in parts))
        self.edits_ = found
        return self

    def _ordered(self, model: LanguageModel) -> list[str]:
        if self.hookpoints is None:
            before = model.hookpoints[: model.hookpoints.index(self.encoder.layer) + 1]
            return [n for n in ("embeddings", *(f"blocks.{i}" for i in range(model.n_blocks))) if n in before]
        check_hookpoints(self.hookpoints, model.hookpoints)
        return sorted(self.hookpoints, key=model.hookpoints.index)


@dataclass(eq=False, repr=False)
class NeuronAblation(_EditedEncoder):
    """Set the neurons whose text means tell the attribute best to their mean.

    The neuron skyline of SHIFT (Marks et al. 2024, arXiv 2403.19647, section 4), with the contrast of this
    package in place of attribution patching.
    """

    encoder: ActivationEncoder
    _: KW_ONLY
    hookpoint: str = "embeddings"
    n_neurons: int = 55

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Choose the neurons; ``y`` is not read. Raises InputError for fewer than one or more than there are."""
        texts, width = check_texts(X), self.encoder.language_model.d_model
        if not 1 <= self.n_neurons <= width:
            raise InputError(f"n_neurons is {self.n_neurons}; expected 1 to {width}, the model's width")
        z, values = encode_attribute(sensitive_features, len(texts))
        rows = self.encoder.rows(texts, self.hookpoint)
        scores = class_conditional_contrast(rows.pool().numpy(), np.ones(width), z, values, min_cell=1)
        chosen = np.argsort(-scores.score, kind="stable")[: self.n_neurons]
        only = torch.eye(width)[torch.from_numpy(chosen)]
        self.edits_ = {self.hookpoint: LinearEdit(only, only, rows.x.mean(dim=0))}
        return self


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

    def transform(self, X: Any) -> np.ndarray:
        """Return representations ``(n_texts, d_model)`` in float32."""
        texts = check_texts(X)
        encoder, model = self.encoder, self.encoder.language_model
        model.check_spans()
        concept = Concept.load(self.concept)
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
                    max_length=encoder.max_length,
                    token_budget=encoder.token_budget,
                    progress=encoder.verbose,
                )
        return out

    def __sklearn_tags__(self) -> Tags:
        return text_tags(super().__sklearn_tags__(), requires_fit=False)


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
            for word in concept.find(text):
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
