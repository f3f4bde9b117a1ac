"""What a classifier's decision rests on: latents ranked by what they add to it, through the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.heads import logistic_head, quiet
from debias_ssae.model import Activations, Edit, LanguageModel, Readout, harvest
from debias_ssae.model.forward import Batch, make_batch, run_batch, token_batches, tokens_of
from debias_ssae.model.harvesting import CHUNK_TEXTS, pool
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.scores import CHUNK, LatentScores, corrected_p_values

_EXACT = 1e-3
"""Largest error, in standard deviations of the scores, with which a head still counts as linear."""
_LEAST_PROBABILITY = 1e-6
TOKEN_BUDGET = 1024
"""Tokens of a pass with gradients, padding included."""


@dataclass(frozen=True)
class LinearHead:
    """Scores ``X @ weights.T + bias``; of two classes one score, for the second; else one a class."""

    weights: np.ndarray
    """``[k, d]``, float64."""
    bias: np.ndarray
    """``[k]``."""
    classes: tuple[Any, ...]
    kind: str = "trained"
    """trained (on y), exact (the user's head is linear) or distilled (from predictions or scores)."""
    fidelity: float = 1.0
    """Share of the texts on which it predicts what the head that it stands for predicts."""

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return the scores ``[n, k]``."""
        scores: np.ndarray = np.asarray(X, dtype=np.float64) @ self.weights.T + self.bias
        return scores

    def codes(self, X: np.ndarray) -> np.ndarray:
        """Return the predicted classes' numbers ``[n]``."""
        scores = self.scores(X)
        return (scores[:, 0] > 0).astype(int) if len(self.weights) == 1 else scores.argmax(axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class labels ``[n]``."""
        return np.asarray(self.classes)[self.codes(X)]

    def margins(self, codes: np.ndarray) -> np.ndarray:
        """Return, for texts of the classes ``codes [n]``, the direction that speaks for their class ``[n, d]``.

        Of two classes it is plus or minus the weights; of several the class's weights less the mean of the others'.
        """
        if len(self.weights) == 1:
            return np.where(codes > 0, 1.0, -1.0)[:, None] * self.weights
        others = (self.weights.sum(axis=0) - self.weights) / (len(self.weights) - 1)
        directions: np.ndarray = (self.weights - others)[codes]
        return directions

    def lead(self, X: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return by how much the classes ``codes [n]`` lead in ``X [n, d]``: ``margins`` read, and the bias."""
        scores = self.scores(X)
        if scores.shape[1] == 1:
            return np.where(codes > 0, scores[:, 0], -scores[:, 0])
        own = scores[np.arange(len(codes)), codes]
        return np.asarray(own - (scores.sum(axis=1) - own) / (scores.shape[1] - 1))

    def after(self, transform: Callable[[np.ndarray], np.ndarray]) -> "LinearHead":
        """Return the head as it reads what stands before ``transform``, an affine map of rows."""
        d = self.weights.shape[1]
        origin = self.scores(transform(np.zeros((1, d))))
        return replace(self, weights=(self.scores(transform(np.eye(d))) - origin).T, bias=origin[0])

    @classmethod
    def fit(cls, X: np.ndarray, y: np.ndarray, C: float) -> "LinearHead":
        """Fit a standardised logistic regression. Raises InputError for a single class."""
        classes = np.unique(y)
        if len(classes) < 2:
            raise InputError(f"a classifier needs two classes, but the target holds only {classes.tolist()}")
        with quiet():
            model = logistic_head(C).fit(X, y)
        weights = model[1].coef_ / model[0].scale_
        return cls(weights, model[1].intercept_ - weights @ model[0].mean_, tuple(classes.tolist()))

    @classmethod
    def read(cls, estimator: Any, X: np.ndarray) -> "LinearHead":
        """Read a fitted scikit-learn classifier: exactly where it is linear, else distilled on ``X [n, d]``.

        Raises InputError for something else, and for a classifier of representations of another width.
        """
        if not (hasattr(estimator, "predict") and hasattr(estimator, "classes_")):
            raise InputError(
                f"head is a {type(estimator).__name__}; expected a fitted scikit-learn classifier, or an array of its "
                "predictions or scores on the texts"
            )
        classes = np.asarray(estimator.classes_)
        try:
            predicted = np.asarray(estimator.predict(X))
        except (ValueError, AttributeError, TypeError) as error:  # a pipeline that starts from texts, say
            raise InputError(
                f"the head does not take these representations: {error}; of a classifier of something else give its "
                "predictions"
            ) from error
        if not hasattr(estimator, "decision_function"):
            if hasattr(estimator, "predict_proba"):
                return cls.distil(X, estimator.predict_proba(X), classes)
            return cls.distil(X, predicted, classes)
        scores = _columns(estimator.decision_function(X))
        if scores.shape[1] not in (1, len(classes)) or len(classes) == 2 != scores.shape[1] + 1:
            return cls.distil(X, predicted, classes)
        d = X.shape[1]
        scale = max(float(np.abs(X).max()), 1.0)
        origin = _columns(estimator.decision_function(np.zeros((1, d), X.dtype)))
        moved = _columns(estimator.decision_function((np.eye(d) * scale).astype(X.dtype)))
        head = cls(((moved - origin) / scale).T, origin[0], tuple(classes.tolist()), "exact")
        if np.abs(head.scores(X) - scores).max() <= _EXACT * max(float(scores.std()), 1e-12):
            return head
        return cls.distil(X, scores, classes)

    @classmethod
    def distil(cls, X: np.ndarray, outputs: np.ndarray, classes: np.ndarray) -> "LinearHead":
        """Fit a linear head to ``outputs``: predicted classes ``[n]``, scores ``[n]`` (of two classes, for the second)
        or ``[n, k]``, or probabilities of either shape. ``classes`` are sorted as the columns are.

        Raises InputError for another shape, unknown classes and predictions of a single class.
        """
        outputs = np.asarray(outputs)
        if len(outputs) != len(X):
            raise InputError(f"there are {len(X)} texts, but {len(outputs)} predictions; they must agree")
        is_score = outputs.dtype.kind == "f" and not set(np.unique(outputs)) <= set(classes.tolist())
        if not is_score:
            strange = sorted(set(map(str, outputs.ravel())) - set(map(str, classes)))
            if outputs.ndim != 1 or strange:
                raise InputError(
                    f"predictions must be one class a text ({', '.join(map(str, classes))}), or scores as floating "
                    f"point numbers; got {', '.join(strange[:3]) or outputs.shape}"
                )
            head, wanted = cls.fit(X, outputs, C=1.0), outputs
            return replace(head, kind="distilled", fidelity=float((head.predict(X) == wanted).mean()))
        scores = _columns(outputs.astype(np.float64))
        if len(classes) == 2 and scores.shape[1] == 2:
            scores = scores[:, 1:] if _are_probabilities(scores) else scores[:, 1:] - scores[:, :1]
        if scores.shape[1] != (1 if len(classes) == 2 else len(classes)):
            raise InputError(
                f"scores have shape {outputs.shape}, but there are {len(classes)} classes; expected one column a class"
            )
        if _are_probabilities(scores):
            p = np.clip(scores, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
            scores = np.log(p / (1 - p)) if scores.shape[1] == 1 else np.log(p)
        if not np.isfinite(scores).all():
            raise InputError("the head's scores hold NaN or infinity")
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 7))).fit(X, scores)
        weights = np.atleast_2d(model[1].coef_) / model[0].scale_
        bias = np.atleast_1d(model[1].intercept_) - weights @ model[0].mean_
        head = cls(weights, bias, tuple(classes.tolist()), "distilled")
        wanted_codes = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
        return replace(head, fidelity=float((head.codes(X) == wanted_codes).mean()))


def _columns(scores: Any) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    return scores[:, None] if scores.ndim == 1 else scores


def _are_probabilities(scores: np.ndarray) -> bool:
    inside = bool(((scores >= 0) & (scores <= 1)).all())
    return inside and (scores.shape[1] == 1 or bool(np.allclose(scores.sum(axis=1), 1, atol=1e-3)))


def classifier_attribution(
    model: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    directions: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    hookpoint: str = "embeddings",
    layer: str = "final",
    pooling: str | Readout = "auto",
    edits: Mapping[str, Edit] | None = None,
    removed: np.ndarray | None = None,
    steps: int = 10,
) -> LatentScores:
    """Score latents by what they add to each text's reading ``representation @ direction`` (SHIFT, Marks et al. 2024,
    section 4), in the model with ``edits``.

    A latent's effect on a text is the sum over its tokens of activation x (decoder row . mean gradient), along
    the path on which all latents and the SAE's error fade to ``b_dec`` together. ``directions`` is ``[d]``, the same
    for all texts, or ``[n, d]``; with the margin of each text's own class (``LinearHead.margins``) the effect is what
    speaks for that class. ``effect`` has its mean inside each class of ``labels [n]``; the score is the absolute mean
    over classes, to which a latent that adds the same in every text adds nothing. ``removed`` are the latents that an
    edit at ``hookpoint`` removes: they add nothing any more.

    Raises InputError for directions of another shape, and as ``integrated_gradients`` does.
    """
    directions = np.atleast_2d(np.asarray(directions, dtype=np.float32))
    width = model.readout(pooling, layer).width(model.d_model)
    if directions.shape not in ((1, width), (len(texts), width)):
        raise InputError(
            f"directions have shape {directions.shape}; {model.name} and {len(texts)} texts need "
            f"({len(texts)}, {width})"
        )
    rows, gradients = integrated_gradients(
        model,
        texts,
        torch.from_numpy(np.broadcast_to(directions, (len(texts), width)).copy()),
        hookpoint,
        layer=layer,
        pooling=pooling,
        edits=edits,
        baseline=sae.b_dec.detach().float(),
        steps=steps,
    )
    gone = torch.tensor([] if removed is None else np.asarray(removed).tolist(), dtype=torch.long)
    effects = torch.zeros(len(texts), sae.cfg.d_sae)
    activity, fired = torch.zeros(sae.cfg.d_sae), torch.zeros(sae.cfg.d_sae)
    for start in range(0, len(rows.x), CHUNK):
        part = slice(start, start + CHUNK)
        with torch.no_grad():
            f = sae.encode(rows.x[part]).float().cpu()
            f[:, gone] = 0.0
            effects.index_add_(0, rows.text_ids[part], f * (gradients[part] @ sae.W_dec.T.float().cpu()))
        activity, fired = activity + f.sum(0), fired + (f > 0).sum(0)
    each = effects.numpy().astype(np.float64)
    of_class = np.zeros(len(each), dtype=int) if labels is None else np.asarray(labels)
    classes = np.unique(of_class)
    effect = np.stack([each[of_class == c].mean(axis=0) for c in classes])
    mean = effect.mean(axis=0)
    n_rows = max(len(rows.x), 1)
    return LatentScores(
        method="integrated_gradients",
        score=np.abs(mean),
        sign=np.sign(mean),
        effect=effect,
        firing_rate=(fired / n_rows).numpy(),
        mass=(activity / n_rows).numpy(),
        p_value=corrected_p_values(_z(each, of_class, classes)),
        classes=() if labels is None else tuple(map(str, classes)),
    )


def _z(each: np.ndarray, of_class: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The mean over classes of the effects ``[n, d_sae]`` over its standard error; 0 where that is 0."""
    inside = [each[of_class == c] for c in classes]
    mean = sum(part.mean(axis=0) for part in inside)
    error = np.sqrt(sum(part.var(axis=0) / len(part) for part in inside))
    z: np.ndarray = np.divide(mean, error, out=np.zeros_like(error), where=error > 0)
    return z


def integrated_gradients(
    model: LanguageModel,
    texts: Sequence[str],
    directions: Tensor,
    hookpoint: str,
    *,
    layer: str = "final",
    pooling: str | Readout = "auto",
    edits: Mapping[str, Edit] | None = None,
    baseline: Tensor | None = None,
    steps: int = 10,
) -> tuple[Activations, Tensor]:
    """Return the rows at ``hookpoint`` and, for each, the mean gradient of its text's reading ``[n_tokens, d]``.

    A text's reading is its pooled representation at ``layer`` times its row of ``directions`` [n_texts, d] (or
    [d], the same for all), in the model with ``edits``; the rows are those before an edit at ``hookpoint``, whose
    result ``x`` fades. The gradients are averaged over ``steps`` points ``baseline + (1 - k / steps)(x - baseline)``,
    k = 0, 1, ..., for all rows at once (Sundararajan et al. 2017, arXiv 1703.01365, with the points of SHIFT, Marks et
    al. 2024, arXiv 2403.19647). ``baseline`` [d] is zero by default; one step is the plain gradient.

    Raises InputError for texts that occur twice, a hookpoint after ``layer`` and less than one step.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}; at least one is needed")
    if len(set(texts)) < len(texts):
        raise InputError("a text occurs twice; give each text once, so that each has one reading")
    others = dict(edits or {})
    here = others.pop(hookpoint, None)
    readout = model.readout(pooling, layer)
    rows = harvest(model, texts, hookpoint, edits=edits_before(model, others, hookpoint))
    goals = (directions.expand(len(texts), -1) if directions.ndim == 1 else directions).to(model.device)
    origin = (torch.zeros(model.d_model) if baseline is None else baseline).to(model.device)
    points = [_Point(origin, 1 - k / steps, here) for k in range(steps)]
    first = np.cumsum([0, *torch.bincount(rows.text_ids, minlength=len(texts)).tolist()])
    gradients = torch.zeros_like(rows.x)
    for start in range(0, len(texts), CHUNK_TEXTS):
        some = list(texts[start : start + CHUNK_TEXTS])
        tokens = tokens_of(model, some)
        for sequences in token_batches(tokens.lengths, TOKEN_BUDGET):
            batch, ids = make_batch(model, tokens, sequences), start + tokens.text_ids[sequences]
            found = sum(
                _gradient(model, batch, {**others, hookpoint: point}, point, layer, readout, goals[ids])
                for point in points
            )
            places = np.concatenate([np.arange(first[i], first[i + 1]) for i in ids])
            gradients[torch.from_numpy(places)] = torch.as_tensor(found).cpu() / steps
    return rows, gradients


def edits_before(model: LanguageModel, edits: Mapping[str, Edit], hookpoint: str) -> dict[str, Edit]:
    """The edits that a pass up to ``hookpoint`` comes by."""
    earlier = model.hookpoints[: model.hookpoints.index(hookpoint)] if hookpoint in model.hookpoints else ()
    return {name: edit for name, edit in edits.items() if name in earlier}


class _Point:
    """An edit that moves all rows to one point of the path, and keeps them for the derivative."""

    def __init__(self, origin: Tensor, share: float, first: Edit | None) -> None:
        self.origin, self.share, self.first = origin, share, first
        self.rows = origin

    def __call__(self, x: Tensor) -> Tensor:
        x = x.detach()
        x = x if self.first is None else self.first(x)
        self.rows = (self.origin + self.share * (x - self.origin)).requires_grad_()
        return self.rows


def _gradient(
    model: LanguageModel,
    batch: Batch,
    edits: Mapping[str, Edit],
    point: _Point,
    layer: str,
    readout: Readout,
    goals: Tensor,
) -> Tensor:
    """Gradient of the batch's readings at one point of the path ``[n_rows, d]``, rows as in ``batch.real``."""
    here = replace(batch, states={})
    run_batch(model, here, [layer], edits, with_grad=True)
    reading = (pool(here, layer, readout) * goals).sum()
    return torch.autograd.grad(reading, point.rows)[0]
