"""One method in one seed: fitted, used, judged."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from debias_ssae.audit.leakage import probe_leakage
from debias_ssae.audit.rates import cell_accuracy, confusion, summary_values
from debias_ssae.benchmark.methods import (
    Context,
    Method,
    family,
    fit_options,
    last_step,
    needs_attribute,
    transform_with,
)
from debias_ssae.benchmark.protocol import Protocol, Samples
from debias_ssae.benchmark.summary import KEYS
from debias_ssae.core.errors import InputError, MissingExtraError
from debias_ssae.core.stats.heads import fit_head
from debias_ssae.model.encoder import ActivationEncoder

MEASURES = (
    "accuracy",
    "balanced_accuracy",
    "worst_group_accuracy",
    "tpr_gap_rms",
    "demographic_parity_difference",
    "equalized_odds_difference",
)
LEAKAGE = ("leakage", "leakage_given_y")
LEAKAGE_FOLDS = 3
"""Of the test texts, for the probes."""
N_NAMES = 12
"""Names of removed latents that are kept."""
_ENCODERS: dict[str, ActivationEncoder] = {}


@dataclass(frozen=True)
class Plain:
    """What the methods of a seed share: a head on the plain representations, and where these are kept."""

    head: Any
    """Logistic regression on standardised columns, its C by 5-fold accuracy."""
    center: np.ndarray
    """Mean representation of the head's texts."""
    leakage: dict[str, float | None]
    directory: str


@dataclass(frozen=True)
class Used:
    """A fitted estimator and what it made of the test texts; ``what`` it was asked for."""

    estimator: Any
    what: str
    """transform or predict."""
    test: np.ndarray
    seconds_fit: float
    seconds_transform: float


def plain_of(protocol: Protocol, number: int, methods: dict[str, Method]) -> Plain:
    """Encode the seed's texts as they are, each once, and train a head on them."""
    split, seed = protocol.splits[number], protocol.config.seed + number
    directory = Path(str(protocol.cache_dir)) / "plain" / protocol.seed_key(number)
    encoder = _encoder(protocol, str(directory))
    head, annotated, test = (protocol.samples(rows) for rows in (split.head, split.attribute, split.test))
    every = [*head.texts, *annotated.texts, *test.texts]
    if any("labelled_all" in method.regimes for method in methods.values()):
        every += protocol.samples(split.rest).texts
    if protocol.other_texts is not None:
        every += protocol.other_texts.texts
    encoder.transform(every)
    X_head, X_test = (encoder.transform(one.texts) for one in (head, test))
    center = X_head.mean(axis=0, dtype=np.float64)
    probed = leakage(X_test, test.y, test.z, seed)
    return Plain(fit_head(X_head, head.y, random_state=seed), center, probed, str(directory))


def run_method(protocol: Protocol, plain: Plain, number: int, name: str, method: Method) -> dict[str, Any]:
    """Return a record: rows and predictions of the method in every regime that it can be told, and what could not
    run, and why.
    """
    started = time.process_time()
    record: dict[str, Any] = {"rows": [], "predictions": [], "skipped": []}
    asked = method.regimes if method.is_reference else protocol.regimes
    regimes = [regime for regime in asked if family(regime) in method.regimes]
    if not regimes:
        reason = f"the run has none of its regimes ({', '.join(method.regimes)})"
        record["skipped"].append({"method": name, "regime": "", "reason": reason})
    for regime in regimes:
        try:
            for row, predicted in evaluate(protocol, plain, number, name, method, regime):
                record["rows"].append(row)
                record["predictions"].append(predicted)
        except (InputError, MissingExtraError) as error:
            record["skipped"].append({"method": name, "regime": regime, "reason": str(error)})
    return record | {"processor_seconds": time.process_time() - started}


def evaluate(
    protocol: Protocol, plain: Plain, number: int, name: str, method: Method, regime: str
) -> Iterator[tuple[dict[str, Any], tuple[dict[str, Any], list[str]]]]:
    """Yield a row, and what names it with its predictions, for each head: retrained, and trained before the edit.

    A frozen head sees an edited representation as it is, and shifted so that the mean of the head's texts stays where
    it was. An estimator that is itself a classifier has one kind of head.
    """
    split, seed = protocol.splits[number], protocol.config.seed + number
    head, test = protocol.samples(split.head), protocol.samples(split.test)
    context = context_of(protocol, plain, number, regime)
    used = use(protocol, context, method, number)
    config, is_plain = protocol.config, used.estimator is context.plain
    same = is_plain or used.what == "predict"
    vectors = np.ascontiguousarray(used.test, np.float32) if used.what == "transform" else None
    facts = {
        **_facts(used.estimator),
        "needs_attribute": needs_attribute(used.estimator),
        "seconds_fit": used.seconds_fit,
        "seconds_transform": used.seconds_transform,
        "vectors": None if vectors is None else hashlib.sha256(vectors.tobytes()).hexdigest(),
        **(plain.leakage if same else leakage(used.test, test.y, test.z, seed)),
    }
    for head_kind, representation, y_pred, C, rule in _heads(protocol, plain, head, used, number, is_plain):
        keys = {
            "method": name,
            "setting": config.setting,
            "regime": regime,
            "representation": f"{config.pooling}({config.layer}){representation}",
            "head": head_kind,
            "head_model": "logistic",
            "C_rule": rule,
            "seed": seed,
        }
        row = {**keys, "C": C, **scores(test.y, y_pred, test.z, protocol.majority), **facts}
        yield row, ({key: keys.get(key) for key in (*KEYS, "seed")}, y_pred.tolist())


def context_of(protocol: Protocol, plain: Plain, number: int, regime: str) -> Context:
    """What a method is made from. Raises InputError where the run cannot tell what ``regime`` tells."""
    return Context(
        config=protocol.config,
        supervision=protocol.supervision(regime, number),
        encoder=_encoder(protocol, None),
        plain=_encoder(protocol, plain.directory),
        classes=tuple(np.unique(protocol.y).tolist()),
        corpus=protocol.corpus,
        cache_dir=protocol.cache_dir,
        random_state=protocol.config.seed + number,
    )


def use(protocol: Protocol, context: Context, method: Method, number: int) -> Used:
    """Make the estimator, fit it, and apply it to the test texts."""
    split, told = protocol.splits[number], context.supervision
    head, test = protocol.samples(split.head), protocol.samples(split.test)
    estimator = method.make(context)
    options = fit_options(estimator)
    texts, y, given = head.texts, head.y, {"exclude": test.texts}
    if method.learns_from == "annotated":
        if told.annotated is None:
            raise InputError("this method learns from texts whose attribute is known")
        texts, y = told.annotated.texts, told.annotated.y
        given["sensitive_features"] = told.annotated.sensitive_features
    start = time.perf_counter()
    estimator.fit(texts, y, **{options[key]: value for key, value in given.items() if key in options})
    fitted = time.perf_counter()
    what = "transform" if hasattr(estimator, "transform") else "predict"
    result = transform_with(estimator, test.texts, test.z, what)
    return Used(estimator, what, result, fitted - start, time.perf_counter() - fitted)


def _heads(
    protocol: Protocol, plain: Plain, head: Samples, used: Used, number: int, is_plain: bool
) -> Iterator[tuple[str, str, np.ndarray, float | None, str]]:
    """Kind of head, what is said of the representation, predictions, C, and how that was set: "cv", by 5-fold accuracy
    on the head's own data, or "own", by the method.
    """
    if used.what == "predict":
        last = last_step(used.estimator)
        rule = "cv" if getattr(last, "C", None) == "auto" else "own"
        yield "retrained", "", used.test, getattr(last, "C_", None), rule
        return
    model = plain.head
    if not is_plain:
        X = transform_with(used.estimator, head.texts, head.z, "transform")
        model = fit_head(X, head.y, random_state=protocol.config.seed + number)
    yield "retrained", "", model.predict(used.test), model[-1].C, "cv"
    if not is_plain and X.shape[1] == len(plain.center):
        shift = (plain.center - X.mean(axis=0, dtype=np.float64)).astype(X.dtype)
        for representation, shown in (("", used.test), (", re-centred", used.test + shift)):
            yield "frozen", representation, plain.head.predict(shown), plain.head[-1].C, "cv"


def _facts(estimator: Any) -> dict[str, Any]:
    """Where a debiaser edits the model, and what it removes."""
    parts = getattr(estimator, "interventions_", None)
    if parts is None:
        return dict.fromkeys(("hookpoint", "d_sae", "n_latents", "choice", "removed"))
    named = [name for one in estimator.report_["removed"].values() for name in one["names"]]
    return {
        "removed": named[:N_NAMES],
        "choice": estimator.report_["choice"],
        "hookpoint": ", ".join(parts),
        "d_sae": max(part.sae.cfg.d_sae for part in parts.values()),
        "n_latents": sum(len(part.selection.ids) for part in parts.values()),
    }


def _encoder(protocol: Protocol, cache_dir: str | None) -> ActivationEncoder:
    """The run's encoder with this cache; its model is loaded once in a process."""
    given = protocol.encoder
    if "loaded" not in vars(given):
        given = _ENCODERS.setdefault(repr(given.get_params()), given)
    _ = given.loaded
    copy = given.copy()
    copy.cache_dir = cache_dir
    return copy


def scores(y: np.ndarray, y_pred: np.ndarray, z: np.ndarray, majority: dict[str, str]) -> dict[str, Any]:
    """Measures of one head on the test texts. ``attribute_accuracy``: how often the prediction, read as its
    class's majority attribute value, gives the attribute away (one over the number of values is chance).
    ``cells``: size and accuracy of each cell (class x attribute).
    """
    classes, codes = np.unique(np.concatenate([y, y_pred]), return_inverse=True)
    groups, group_codes = np.unique(z, return_inverse=True)
    counts = confusion(group_codes, codes[: len(y)], codes[len(y) :], (len(groups), len(classes)))
    share, found = cell_accuracy(counts), summary_values(counts, len(classes) - 1)
    cells = {
        f"{classes[c]}, {groups[g]}": {"n": int(share.n[g, c]), "accuracy": float(share.value[g, c])}
        for c, g in np.argwhere(share.n.T > 0)
    }
    return {
        **{name: float(found[name]) for name in MEASURES},
        "worst_group": min(cells, key=lambda cell: cells[cell]["accuracy"]),
        "attribute_accuracy": float(np.mean([majority.get(c) == g for c, g in zip(y_pred, z, strict=True)])),
        "cells": cells,
    }


def leakage(X: np.ndarray, y: np.ndarray, z: np.ndarray, random_state: int) -> dict[str, float | None]:
    """Balanced accuracy of linear probes of the attribute: over all texts and inside each class.

    Cross-fitted on the test texts, which no method has seen: on the group-annotated set, where many are fitted, an
    eraser leaves nothing to find whatever it leaves elsewhere.
    """
    report = probe_leakage(X, z, y, probes=("linear",), n_folds=LEAKAGE_FOLDS, random_state=random_state)
    found = {result.given_y: result.balanced_accuracy for result in report.results}
    return {name: found.get(given) for name, given in zip(LEAKAGE, (False, True), strict=True)}
