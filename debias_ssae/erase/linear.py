"""Linear erasers for pooled representations: what is left after the edit inside the model."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.heads import quiet

DISPLACED, MOST_DISPLACED = 0.9, 4
"""Share of the movement that ``fit_displacement`` projects out, and by how many directions at most."""


@dataclass(frozen=True)
class LinearEraser:
    """``x -> x - (x - center) @ read.T @ write`` on rows ``[n, d]``; read and write directions ``[k, d]``, float64.

    They are fitted on standardised columns and hold the scale: a column of tiny spread would else be left with
    nothing but the rounding of the others.
    """

    read: np.ndarray
    write: np.ndarray
    center: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return edited rows in the dtype that came in."""
        return (x - (x - self.center) @ self.read.T @ self.write).astype(x.dtype)


def spread(rows: np.ndarray) -> np.ndarray:
    """Standard deviation of each column ``[d]``, float64."""
    scale: np.ndarray = rows.astype(np.float64).std(axis=0)
    return scale


def inverse(scale: np.ndarray) -> np.ndarray:
    """One over it; 0 where a column is constant, so that an eraser neither reads nor writes it."""
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > np.finfo(np.float64).tiny)


def principal_directions(differences: np.ndarray) -> np.ndarray:
    """Orthonormal directions ``[d, d]`` of ``differences [n, d]`` about zero, most energy first."""
    _, vectors = np.linalg.eigh(differences.T @ differences)
    ordered: np.ndarray = vectors[:, ::-1].T
    return ordered


def orthonormal(columns: np.ndarray, tol: float = 1e-6) -> np.ndarray:
    """An orthonormal basis ``[d, r]`` of the span of ``columns [d, k]``, which belong to standardised rows."""
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    # less than 1e-12 is rounding
    basis: np.ndarray = u[:, s > max(tol * float(s.max(initial=0.0)), 1e-12)]
    return basis


def fit_counterfactual(a: np.ndarray, b: np.ndarray, n_components: int = 1) -> LinearEraser:
    """Project out the principal directions of (b - a), rows ``[n, d]`` of texts in both versions.

    The mean of both versions is kept in place, so that a deployed classifier keeps its intercept. Raises
    InputError when there is no difference to learn from.
    """
    if not len(a) or np.array_equal(a, b):
        raise InputError(
            "no counterfactual differs from its text: the concept's words do not occur in the training texts"
        )
    both = np.vstack([a, b])
    center, scale = both.mean(axis=0, dtype=np.float64), spread(both)
    basis = principal_directions((b.astype(np.float64) - a) * inverse(scale))[:n_components]
    return LinearEraser(basis * inverse(scale), basis * scale, center)


def fit_displacement(
    plain: np.ndarray, edited: np.ndarray, *, n_components: int | None = None
) -> LinearEraser:
    """Project out the principal directions of what the edit moved, rows ``[n, d]`` without and with the edit.

    It needs no label and no word: where the edit moved the texts, the attribute is. By default the directions that
    carry DISPLACED of the movement, at most MOST_DISPLACED. Raises InputError where nothing moved.
    """
    if not len(plain) or np.array_equal(plain, edited):
        raise InputError("the edit moved no training text, so there is no displacement to project out")
    scale = spread(plain)
    moved = (plain.astype(np.float64) - edited) * inverse(scale)
    basis = principal_directions(moved)
    if n_components is None:
        energy = np.square(moved @ basis[:MOST_DISPLACED].T).sum(axis=0) / np.square(moved).sum()
        n_components = min(int(np.searchsorted(np.cumsum(energy), DISPLACED)) + 1, MOST_DISPLACED)
    basis = basis[:n_components]
    return LinearEraser(basis * inverse(scale), basis * scale, edited.mean(axis=0, dtype=np.float64))


def joined(erasers: Sequence[LinearEraser], x: np.ndarray) -> LinearEraser:
    """One eraser for all that ``erasers`` read, so that none brings back what another one took out.

    Each reads linear functionals of a row; all of them are set to the values that their own centres have, by the
    smallest move in units of the columns of ``x [n, d]``.
    """
    scale, mean = spread(x), x.mean(axis=0, dtype=np.float64)
    reads = np.concatenate([one.read for one in erasers])
    wanted = np.concatenate([one.read @ one.center for one in erasers])
    basis = orthonormal((reads * scale).T)
    along = np.linalg.lstsq((reads * scale) @ basis, wanted - reads @ mean, rcond=None)[0]
    return LinearEraser(basis.T * inverse(scale), basis.T * scale, mean + scale * (basis @ along))


def fit_mean_difference(
    x: np.ndarray, z: np.ndarray, y: np.ndarray | None = None, *, edited: np.ndarray | None = None
) -> LinearEraser:
    """Project out the differences between the groups' means, for rows ``[n, d]`` and attribute codes ``[n]``.

    With classes ``y [n]`` they are taken inside each class and pooled, a class weighing by how many pairs of
    groups it has. The centre lies midway between the groups, so that neither is favoured where one is rare.
    With ``edited``, the rows after an edit, what still differs there goes as well.
    """
    scale = spread(x)
    basis, center = _apart(x * inverse(scale), z, y)
    if edited is not None:
        left = edited * inverse(scale)
        left = left - (left - center) @ basis.T @ basis
        # nothing differs along the first directions any more, so these are orthogonal to them
        more, its_center = _apart(left, z, y)
        center = center + (its_center - center) @ more.T @ more
        basis = np.vstack([basis, more])
    return LinearEraser(basis * inverse(scale), basis * scale, center * scale)


def _apart(rows: np.ndarray, z: np.ndarray, y: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal directions ``[k, d]`` in which the groups' means differ inside classes, and the point midway."""
    classes = np.zeros(len(rows), dtype=int) if y is None else y
    pulls, centers, weights = np.zeros((int(z.max()) + 1, rows.shape[1])), [], []
    for label in np.unique(classes):
        inside = classes == label
        groups, sizes = np.unique(z[inside], return_counts=True)
        means = np.stack([rows[inside & (z == group)].mean(axis=0) for group in groups])
        shares = sizes / sizes.sum()
        pulls[groups] += sizes[:, None] * (means - shares @ means)
        centers.append(means.mean(axis=0))
        weights.append(float(sizes @ (1 - shares)))
    # without two groups in any class nothing differs, and any centre will do
    center = np.average(centers, axis=0, weights=weights if any(weights) else None)
    return orthonormal(pulls.T / len(rows)).T, center


def fit_leace(
    x: np.ndarray,
    z: np.ndarray,
    y: np.ndarray | None = None,
    *,
    weights: np.ndarray | None = None,
    shrinkage: bool = True,
    constrain_trace: bool = False,
) -> LinearEraser:
    """LEACE (Belrose et al. 2023, arXiv 2306.03819) for rows ``[n, d]`` and attribute codes ``[n]``.

    With classes ``y`` [n] the groups' means become equal inside each of them, without it over all rows. A row counts
    ``weights`` [n] times. ``shrinkage`` is of the covariance; ``constrain_trace`` never lets the variance grow, which
    costs the guarantee where it acts.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it compiles a function on import
        from concept_erasure import LeaceEraser
    targets = within_classes(np.eye(int(z.max()) + 1)[z], y)
    center, scale = np.average(x.astype(np.float64), axis=0, weights=weights), spread(x)
    rows = (x - center) * inverse(scale)
    if weights is not None:
        # rows and their mirror images have the weighted covariances, and the mean 0
        root = np.sqrt(weights / weights.mean())[:, None]
        targets = targets - np.average(targets, axis=0, weights=weights)
        rows, targets = (np.concatenate([root * part, -root * part]) for part in (rows, targets))
    # the package's own tolerance takes singular values that are no noise for noise, and leaves them in
    fitted = LeaceEraser.fit(
        torch.as_tensor(rows),
        torch.as_tensor(targets),
        svd_tol=1e-6,
        shrinkage=shrinkage,
        constrain_cov_trace=constrain_trace,
    )
    read, write = fitted.proj_right.numpy(), fitted.proj_left.numpy().T
    used = np.abs(write).sum(axis=1) > 0
    return LinearEraser(read[used] * inverse(scale), write[used] * scale, center)


def within_classes(Z: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    """The columns of ``Z`` [n, k] centred in each class of ``y`` [n], a block of columns a class; without y, Z."""
    if y is None:
        return Z
    columns = []
    for label in np.unique(y):
        inside = y == label
        columns.append(np.where(inside[:, None], Z - Z[inside].mean(axis=0), 0.0))
    return np.concatenate(columns, axis=1)


def fit_inlp(
    x: np.ndarray, z: np.ndarray, *, max_iter: int = 100, C: float = 1.0, tol: float = 0.01
) -> tuple[LinearEraser, list[float]]:
    """Iterative nullspace projection (Ravfogel et al. 2020, arXiv 2004.07667), rows ``[n, d]``, codes ``[n]``.

    A linear classifier of the attribute is fitted and its weights are projected out, again and again, until it is
    within ``tol`` of the majority on the training rows. Also returns the training accuracy of each classifier.
    """
    from sklearn.linear_model import LogisticRegression

    center, scale = x.mean(axis=0, dtype=np.float64), spread(x)
    rows = (x - center) * inverse(scale)
    majority, basis = np.bincount(z).max() / len(z), np.zeros((0, x.shape[1]))
    accuracies: list[float] = []
    with quiet():
        for _ in range(max_iter + 1):
            model = LogisticRegression(C=C, max_iter=300).fit(rows, z)
            accuracies.append(float(model.score(rows, z)))
            done = accuracies[-1] <= majority + tol or len(accuracies) > max_iter
            if done or len(basis) >= x.shape[1]:
                break
            weights = model.coef_ - model.coef_ @ basis.T @ basis
            _, s, directions = np.linalg.svd(weights, full_matrices=False)
            basis = np.vstack([basis, directions[s > 1e-9 * max(s.max(), 1e-300)]])
            rows = rows - rows @ basis.T @ basis
    return LinearEraser(basis * inverse(scale), basis * scale, center), accuracies


def fit_splince(
    x: np.ndarray,
    z: np.ndarray,
    y: np.ndarray,
    *,
    shrinkage: bool = True,
    tol: float = 1e-6,
    min_angle: float = 0.01,
) -> LinearEraser:
    """Erase the attribute and keep the covariance with the target (Holstege et al. 2025, arXiv 2506.10703).

    The oblique projection whose kernel holds Cov(x, attribute) and whose range holds Cov(x, target); among those, the
    one that moves the rows ``[n, d]`` least in the metric of their covariance. Raises InputError for a single class
    and where attribute and target span directions closer than ``min_angle`` (radians).
    """
    from scipy.linalg import subspace_angles
    from sklearn.covariance import ledoit_wolf

    classes = np.unique(y)
    if len(classes) < 2:
        raise InputError("SPLINCE needs at least two classes in y, got one")
    center, scale = x.mean(axis=0, dtype=np.float64), spread(x)
    rows = (x - center) * inverse(scale)
    whiten, unwhiten = _roots(ledoit_wolf(rows)[0] if shrinkage else np.cov(rows, rowvar=False))
    kernel, kept = (
        orthonormal(whiten @ (rows.T @ (one_hot - one_hot.mean(axis=0)) / len(rows)), tol)
        for one_hot in (np.eye(int(z.max()) + 1)[z], (classes[None, :] == y[:, None]).astype(float))
    )
    if not kernel.shape[1]:
        return LinearEraser(np.zeros((0, x.shape[1])), np.zeros((0, x.shape[1])), center)
    angle = float(np.min(subspace_angles(kernel, kept))) if kept.shape[1] else np.pi / 2
    if angle < min_angle:
        raise InputError(
            f"attribute and target span the same direction (angle {angle:.4f} rad < {min_angle}): SPLINCE has no "
            "solution; fit on rows where they differ"
        )
    # coordinates along the kernel that vanish on what is kept and on everything else
    beyond = kernel - kept @ (kept.T @ kernel)
    read = np.linalg.solve(beyond.T @ kernel, beyond.T) @ whiten
    return LinearEraser(read * inverse(scale), (unwhiten @ kernel).T * scale, center)


def _roots(sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse square root and the square root of a covariance, on its support."""
    values, vectors = np.linalg.eigh(np.atleast_2d(sigma))
    held = values > values[-1] * len(values) * np.finfo(float).eps
    values, vectors = values[held], vectors[:, held]
    return vectors / np.sqrt(values) @ vectors.T, vectors * np.sqrt(values) @ vectors.T


COMPONENTS = (1, 2, 5, 10, 20, 40, 60, 80, 120, 160, 240)
"""Numbers of counterfactual directions that ``sufficient_components`` tries."""


def sufficient_components(
    a: np.ndarray, b: np.ndarray, random_state: int | None = None
) -> tuple[int, dict[int, float]]:
    """The fewest principal directions of (b - a) without which the two versions ``[n, d]`` look alike.

    That is where a linear probe, cross-fitted over texts, tells them apart no better than chance plus one standard
    error; if none is enough, the most. Also returns the probe's accuracy for each number tried.
    """
    from sklearn.model_selection import GroupKFold

    both = np.vstack([a, b])
    center, scale = both.mean(axis=0, dtype=np.float64), spread(both)
    a, b = ((x - center) * inverse(scale) for x in (a, b))
    n_folds, groups = min(5, len(a)), np.empty(len(a), dtype=int)
    groups[np.random.default_rng(random_state).permutation(len(a))] = np.arange(len(a)) % n_folds
    folds = list(GroupKFold(n_folds).split(a, groups=groups))
    limit = 0.5 + 0.5 / np.sqrt(2 * len(a))
    usable, accuracies = [k for k in COMPONENTS if k < a.shape[1]] or [1], {}
    with quiet():
        # the directions of a fold come from its training texts only
        bases = [principal_directions(b[train] - a[train]) for train, _ in folds]
        for k in usable:
            scores = [_told_apart(a, b, basis[:k], *fold) for basis, fold in zip(bases, folds, strict=True)]
            accuracies[k] = float(np.mean(scores))
            if accuracies[k] <= limit:
                return k, accuracies
    return usable[-1], accuracies


def _told_apart(
    a: np.ndarray, b: np.ndarray, basis: np.ndarray, train: np.ndarray, test: np.ndarray
) -> float:
    """Accuracy of a linear probe that tells the versions of held-out texts apart after the projection."""
    from sklearn.linear_model import LogisticRegression

    middle = (a[train].mean(axis=0) + b[train].mean(axis=0)) / 2

    def erased(rows: np.ndarray) -> np.ndarray:
        rows = rows - middle
        return rows - rows @ basis.T @ basis

    shown = np.vstack([erased(a[train]), erased(b[train])])
    held = np.vstack([erased(a[test]), erased(b[test])])
    model = LogisticRegression(C=1.0, max_iter=200).fit(shown, np.repeat([0, 1], len(train)))
    return float(model.score(held, np.repeat([0, 1], len(test))))
