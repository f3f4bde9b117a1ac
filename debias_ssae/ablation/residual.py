"""Linear erasers for pooled representations: what is left after the edit inside the model."""

import warnings
from dataclasses import dataclass

import numpy as np

from debias_ssae.exceptions import InputError, MissingExtraError


@dataclass(frozen=True)
class LinearEraser:
    """``x -> x - (x - center) @ left.T @ right`` on rows ``[n, d]``; ``left`` and ``right`` are ``[k, d]``."""

    left: np.ndarray
    right: np.ndarray
    center: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return edited rows in the dtype that came in."""
        return x - ((x - self.center) @ self.left.T @ self.right).astype(x.dtype)


class CounterfactualSubspace:
    """Projects out the principal directions of (twin - text) differences, re-centred on the training mean."""

    @staticmethod
    def fit(differences: np.ndarray, center: np.ndarray, n_components: int | None = None) -> LinearEraser:
        """Fit on ``differences [n, d]`` between representations of counterfactual twins.

        ``center [d]`` is the training mean, kept in place so that a deployed classifier keeps its intercept.
        ``n_components`` defaults to as many as hold 95% of the differences' energy.

        Raises InputError when there is no difference to learn from.
        """
        if not len(differences) or not np.any(differences):
            raise InputError(
                "no twin differs from its text: the concept's words do not occur in the training texts"
            )
        _, s, directions = np.linalg.svd(differences.astype(np.float64), full_matrices=False)
        if n_components is None:
            energy = np.cumsum(s**2) / np.sum(s**2)
            n_components = int(np.searchsorted(energy, 0.95) + 1)
        basis = directions[:n_components].astype(np.float32)
        return LinearEraser(basis, basis, center.astype(np.float32))


def leace(x: np.ndarray, z: np.ndarray) -> LinearEraser:
    """LEACE (Belrose et al. 2023, arXiv 2306.03819) for rows ``[n, d]`` and attribute codes ``[n]``.

    Raises MissingExtraError without the package concept-erasure.
    """
    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it compiles a function on import
            from concept_erasure import LeaceEraser
    except ImportError as error:
        raise MissingExtraError("concept-erasure", "baselines") from error
    one_hot = np.eye(int(z.max()) + 1)[z]
    fitted = LeaceEraser.fit(torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(one_hot))
    left, right = fitted.proj_right.numpy(), fitted.proj_left.numpy().T
    center = fitted.bias.numpy() if fitted.bias is not None else np.zeros(x.shape[1])
    return LinearEraser(left.astype(np.float32), right.astype(np.float32), center.astype(np.float32))
