"""How well an attribute can still be read from representations: cross-fitted probes beside a shuffled
control.

A probe that fails proves nothing about probes nobody tried, so the claim is always about the strongest of
these.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from debias_ssae.core.errors import InputError, check_seed, one_line
from debias_ssae.core.stats.heads import logistic_head
from debias_ssae.core.stats.shares import critical_value, mean_of_shares
from debias_ssae.core.steps import bar
from debias_ssae.text.checks import column

Probe = Literal["linear", "mlp", "boosted"]
PROBES: tuple[Probe, ...] = ("linear", "mlp", "boosted")
_LINEAR_C = (1e-3, 1e-2, 1e-1, 1.0)
_BOOSTED_COLUMNS = 64
_MIN_CELL = 20  # rows of an attribute value in a class that is probed
_SEEN_ROWS = 40_000
"""Rows that the network sees in all, but each 8 to 100 times: a number rather than early stopping, for a tenth of few
rows is too little to stop on."""
_LARGE = 1 << 22  # numbers in the representations from which threads pay

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ProbeResult:
    """Balanced accuracy of one probe (mean over attribute values of their recall, mean over classes when
    given y).
    """

    probe: str
    given_y: bool
    balanced_accuracy: float
    ci_low: float
    ci_high: float
    shuffled: float
    """The same probe on shuffled attributes: what it reaches with nothing to find."""
    chance: float
    n: int


@dataclass(frozen=True)
class LeakageReport:
    """Results of all probes. ``skipped`` names the classes too small to be probed given y."""

    results: tuple[ProbeResult, ...]
    values: tuple[str, ...]
    n_missing: int
    skipped: tuple[str, ...]

    def strongest(self, *, given_y: bool = False) -> ProbeResult:
        """The probe with the highest balanced accuracy. Raises InputError when none was run in that form."""
        results = [r for r in self.results if r.given_y == given_y]
        if not results:
            raise InputError("No probe was run given y; pass y to probe_leakage")
        return max(results, key=lambda r: r.balanced_accuracy)

    def claim(self, *, given_y: bool = False) -> str:
        """The only sentence these numbers support."""
        best = self.strongest(given_y=given_y)
        half = (best.ci_high - best.ci_low) / 2
        return (
            f"The strongest of our probes ({best.probe}) reaches a balanced accuracy of"
            f" {best.balanced_accuracy:.3f}"
            f" +/- {half:.3f}{' given the label' if given_y else ''}; shuffled control {best.shuffled:.3f},"
            f" chance {best.chance:.3f}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "results": [dict(vars(r)) for r in self.results],
            "values": list(self.values),
            "n_missing": self.n_missing,
            "skipped": list(self.skipped),
            "claims": [self.claim(given_y=g) for g in sorted({r.given_y for r in self.results})],
        }


def probe_leakage(
    X: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    probes: Sequence[Probe] = PROBES,
    n_folds: int = 5,
    max_rows: int = 20_000,
    random_state: int | None = None,
) -> LeakageReport:
    """Probe representations ``X`` [n, d] for the attribute ``z`` [n], cross-fitted in ``n_folds`` folds.

    It probes all rows and, given ``y`` [n], the rows of each class that has 20 rows of each attribute value
    (``skipped`` names the others), because the label alone may tell the attribute, and that part does not come from
    the representation. Each probe is fitted with balanced weights, its regularisation chosen inside the
    training folds, and once more on shuffled attributes. Intervals hold together over the probes. Rows beyond
    ``max_rows`` are sampled away; rows without attribute or label are left out and counted. Raises InputError on
    lengths that differ, non-finite X, one value only.
    """
    rows, values, labels, n_missing = _checked(X, z, y, probes)
    rng = np.random.default_rng(check_seed(random_state))
    if len(values) > max_rows:
        keep = rng.permutation(len(values))[:max_rows]
        rows, values, labels = rows[keep], values[keep], labels if labels is None else labels[keep]
    names, codes = np.unique(values, return_inverse=True)
    counted = dict(zip(names.tolist(), np.bincount(codes).tolist(), strict=True))
    if len(names) < 2 or min(counted.values()) < n_folds:
        raise InputError(f"z needs two values or more with at least {n_folds} rows each, got {counted}")
    parts, skipped = _parts(codes, labels, len(names), max(_MIN_CELL, n_folds))
    z_critical = critical_value(0.95, len(probes))
    jobs = [(probe, given_y) for given_y in (False, True) for probe in probes if parts[given_y]]
    results = []
    # many small products: one thread is several times faster than a contended pool
    with threadpool_limits(1 if rows.size < _LARGE else None), bar("probes", jobs, unit="probe") as drawn:
        for probe, given_y in drawn:
            found, control = _scores(rows, codes, parts[given_y], probe, n_folds, rng)
            value, low, high = mean_of_shares(*found, z=z_critical)
            shuffled, n = mean_of_shares(*control)[0], int(found[1].sum())
            results.append(ProbeResult(probe, given_y, value, low, high, shuffled, 1 / len(names), n))
    return LeakageReport(tuple(results), tuple(map(str, names)), n_missing, skipped)


def _checked(
    X: ArrayLike, z: ArrayLike, y: ArrayLike | None, probes: Sequence[Probe]
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any] | None, int]:

    unknown = [p for p in probes if p not in PROBES]
    if unknown or not probes:
        raise InputError(f"probes must be some of {list(PROBES)}, got {list(probes)}")
    try:
        rows = np.asarray(X, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"X ({type(X).__name__}) cannot be read as a matrix: {one_line(error)}") from error
    if rows.ndim != 2:
        raise InputError(f"X must have shape [n, d], got {rows.shape}")
    given = {"z": z} | ({} if y is None else {"y": y})
    flat = {name: column(v, name) for name, v in given.items()}
    lengths = {"X": len(rows)} | {name: len(v) for name, v in flat.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"X, z and y need the same number of rows, got {lengths}")
    if not np.isfinite(rows).all():
        raise InputError("X holds NaN or infinite values; probes need finite representations")
    known = np.logical_and.reduce([v.notna().to_numpy() for v in flat.values()])
    values = flat["z"][known].astype(str).to_numpy()
    labels = flat["y"][known].astype(str).to_numpy() if y is not None else None
    return rows[known], values, labels, int((~known).sum())


def _parts(
    codes: Rows, labels: NDArray[Any] | None, n_values: int, min_cell: int
) -> tuple[dict[bool, list[Rows]], tuple[str, ...]]:
    """Row indices to probe: all of them, and each class of the label large enough."""
    parts: dict[bool, list[Rows]] = {False: [np.arange(len(codes))], True: []}
    skipped = []
    for label in [] if labels is None else np.unique(labels):
        inside = np.flatnonzero(np.asarray(labels) == label)
        if np.bincount(codes[inside], minlength=n_values).min() >= min_cell:
            parts[True].append(inside)
        else:
            skipped.append(str(label))
    return parts, tuple(skipped)


Counts = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Hits and rows, one entry a part and attribute value."""


def _scores(
    rows: NDArray[np.float32],
    codes: Rows,
    parts: list[Rows],
    probe: Probe,
    n_folds: int,
    rng: np.random.Generator,
) -> tuple[Counts, Counts]:
    """Out-of-fold counts for the attribute, and for a shuffled one."""
    n_values, found = int(codes.max()) + 1, []
    for shuffle in (False, True):
        hits, size = np.zeros((len(parts), n_values)), np.zeros((len(parts), n_values))
        for i, part in enumerate(parts):
            z = rng.permutation(codes[part]) if shuffle else codes[part]
            splitter = StratifiedKFold(n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
            for train, test in splitter.split(part, z):
                seed = int(rng.integers(2**31))
                model = _fitted(probe, rows[part[train]], z[train], seed)
                told = model.predict(rows[part[test]])
                hits[i] += np.bincount(z[test][told == z[test]], minlength=n_values)
                size[i] += np.bincount(z[test], minlength=n_values)
        found.append((hits.ravel(), size.ravel()))
    return found[0], found[1]


def _fitted(probe: Probe, x: NDArray[np.float32], z: Rows, seed: int) -> Any:
    """The probe, fitted on rows ``x`` [n, d] and codes ``z`` [n] that weigh the same for each value."""
    fit = {"linear": _tuned_linear, "mlp": _network, "boosted": _boosted}[probe]
    return fit(x, z, compute_sample_weight("balanced", z), seed)


def _network(x: NDArray[np.float32], z: Rows, weight: NDArray[np.float64], seed: int) -> Any:
    """One hidden layer of 64 rectified units."""
    epochs = int(np.clip(_SEEN_ROWS // len(z), 8, 100))
    network = MLPClassifier(
        64,
        alpha=1.0,
        batch_size=min(64, len(z)),
        learning_rate_init=3e-3,
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=seed,
    )
    return _quiet_fit(make_pipeline(StandardScaler(), network), x, z, mlpclassifier__sample_weight=weight)


def _boosted(x: NDArray[np.float32], z: Rows, weight: NDArray[np.float64], seed: int) -> Any:

    boosted = HistGradientBoostingClassifier(
        max_iter=40,
        learning_rate=0.15,
        max_leaf_nodes=8,
        max_bins=32,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
    # trees on hundreds of columns take minutes; the columns are screened inside the training rows
    screen = SelectKBest(f_classif, k=min(_BOOSTED_COLUMNS, x.shape[1]))
    model = make_pipeline(screen, boosted)
    return _quiet_fit(model, x, z, histgradientboostingclassifier__sample_weight=weight)


def _tuned_linear(x: NDArray[np.float32], z: Rows, weight: NDArray[np.float64], seed: int) -> Any:
    """Logistic regression; C by balanced accuracy on a held-out fifth of the training rows."""
    train, held = train_test_split(np.arange(len(z)), test_size=0.2, random_state=seed, stratify=z)

    def fitted(C: float, rows: Rows) -> Any:
        weighted = {"logisticregression__sample_weight": weight[rows]}
        return _quiet_fit(logistic_head(C), x[rows], z[rows], **weighted)

    scores = [balanced_accuracy_score(z[held], fitted(C, train).predict(x[held])) for C in _LINEAR_C]
    return fitted(_LINEAR_C[int(np.argmax(scores))], np.arange(len(z)))


def _quiet_fit(model: Any, x: NDArray[np.float32], z: Rows, **fit_params: Any) -> Any:
    """Fit; a probe that stops before full convergence or meets constant columns is still a probe."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="Features .* are constant|invalid value encountered in")
        return model.fit(x, z, **fit_params)
