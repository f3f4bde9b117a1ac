"""Erasers: of latents inside the model, and of directions in what leaves it."""

from debias_ssae.erase.latents import LatentEraser as LatentEraser
from debias_ssae.erase.linear import LinearEraser as LinearEraser
from debias_ssae.erase.linear import fit_counterfactual as fit_counterfactual
from debias_ssae.erase.linear import fit_displacement as fit_displacement
from debias_ssae.erase.linear import fit_inlp as fit_inlp
from debias_ssae.erase.linear import fit_leace as fit_leace
from debias_ssae.erase.linear import fit_mean_difference as fit_mean_difference
from debias_ssae.erase.linear import fit_splince as fit_splince
from debias_ssae.erase.linear import inverse as inverse
from debias_ssae.erase.linear import joined as joined
from debias_ssae.erase.linear import spread as spread
from debias_ssae.erase.linear import sufficient_components as sufficient_components
