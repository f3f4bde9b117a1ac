"""Linear erasers for pooled representations: what is left after the edit inside the model."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from debias_ssae.core.errors import InputError, MissingExtraError

DISPLACED, MOST_DISPLACED = 0.9, 4
"""Share of the movement that ``displacement`` projects out, and by how many directions at most."""


@dataclass(frozen=True)
class LinearEraser:
    """``x -> x - (x - center) @ left.T @ right`` on rows ``[n, d]``; ``left`` and ``right`` are ``[k, d]``, float64.

    They are fitted on standardised columns and hold the scale: a column of tiny spread would else be left with
    nothing but the rounding of the others.
    """

    left: np.ndarray
    right: np.ndarray
    center: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return edited rows in the dtype that came in."""
        return (x - (x - self.center) @ self.left.T @ self.right).astype(x.dtype)


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


def counterfactual(a: np.ndarray, b: np.ndarray, n_components: int = 1) -> LinearEraser:
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


def displacement(plain: np.ndarray, edited: np.ndarray, *, n_components: int | None = None) -> LinearEraser:
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
    reads = np.concatenate([one.left for one in erasers])
    wanted = np.concatenate([one.left @ one.center for one in erasers])
    basis = orthonormal((reads * scale).T)
    along = np.linalg.lstsq((reads * scale) @ basis, wanted - reads @ mean, rcond=None)[0]
    return LinearEraser(basis.T * inverse(scale), basis.T * scale, mean + scale * (basis @ along))


def mean_difference(
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


def leace(x: np.ndarray, z: np.ndarray, y: np.ndarray | None = None) -> LinearEraser:
    """LEACE (Belrose et al. 2023, arXiv 2306.03819) for rows ``[n, d]`` and attribute codes ``[n]``.

    With classes ``y`` [n] the groups' means become equal inside each of them. Raises MissingExtraError without
    the package concept-erasure.
    """
    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it compiles a function on import
            from concept_erasure import LeaceEraser
    except ImportError as error:
        raise MissingExtraError("concept-erasure", "baselines") from error
    targets = within_classes(np.eye(int(z.max()) + 1)[z], y)
    center, scale = x.mean(axis=0, dtype=np.float64), spread(x)
    # the package's own tolerance takes singular values that are no noise for noise, and leaves them in
    fitted = LeaceEraser.fit(
        torch.as_tensor((x - center) * inverse(scale)), torch.as_tensor(targets), svd_tol=1e-6
    )
    left, right = fitted.proj_right.numpy(), fitted.proj_left.numpy().T
    return LinearEraser(left * inverse(scale), right * scale, center)


def within_classes(Z: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    """The columns of ``Z`` [n, k] centred in each class of ``y`` [n], a block of columns a class; without y, Z."""
    if y is None:
        return Z
    columns = []
    for label in np.unique(y):
        inside = y == label
        columns.append(np.where(inside[:, None], Z - Z[inside].mean(axis=0), 0.0))
    return np.concatenate(columns, axis=1)
