"""Group distributionally robust optimisation of a linear head."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from debias_ssae.baselines.group_heads import GroupHead


class GroupDRO(GroupHead):
    """Minimise the worst cell's loss (Sagawa et al. 2020, arXiv 1911.08731) for a softmax head on fixed rows.

    Every step all rows: cell weights go up by ``exp(step_size * loss)``, then Adam steps on the weighted loss
    plus the penalty. The start is zero, so there is no randomness.

    Parameters
    ----------
    penalty : float, default=0.01
        Half the squared weights times this is added to the loss; large penalties are what makes group DRO work.
    step_size : float, default=0.1
        Of the cell weights.
    lr : float, default=0.02
    n_steps : int, default=500

    Attributes
    ----------
    cell_weights_ : ndarray (n_cells,)
        At the end, in the order class, then attribute value; cells without rows are left out.
    """

    def __init__(
        self, *, penalty: float = 0.01, step_size: float = 0.1, lr: float = 0.02, n_steps: int = 500
    ) -> None:
        self.penalty = penalty
        self.step_size = step_size
        self.lr = lr
        self.n_steps = n_steps

    def _learn(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray) -> None:
        rows = torch.as_tensor(X, dtype=torch.float32)
        labels = torch.as_tensor(y)
        codes, index = np.unique(cell, return_inverse=True)
        members = torch.as_tensor(index)
        sizes = torch.bincount(members).float()
        weight = torch.zeros(len(self.classes_), X.shape[1], requires_grad=True)
        bias = torch.zeros(len(self.classes_), requires_grad=True)
        log_q = torch.zeros(len(codes))
        optimiser = torch.optim.Adam([weight, bias], lr=self.lr)
        for _ in range(self.n_steps):
            losses = cross_entropy(rows @ weight.T + bias, labels, reduction="none")
            by_cell = torch.zeros(len(codes)).index_add(0, members, losses) / sizes
            log_q = torch.log_softmax(log_q + self.step_size * by_cell.detach(), 0)
            optimiser.zero_grad()
            ((log_q.exp() * by_cell).sum() + self.penalty / 2 * weight.square().sum()).backward()
            optimiser.step()
        coef, intercept = weight.detach().numpy().astype(float), bias.detach().numpy().astype(float)
        two = len(coef) == 2
        self.coef_ = coef[1:] - coef[:1] if two else coef
        self.intercept_ = intercept[1:] - intercept[:1] if two else intercept
        self.cell_weights_ = log_q.exp().numpy()
