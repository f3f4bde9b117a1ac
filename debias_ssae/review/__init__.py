"""Human review of the removed latents: candidates to look at, a file to edit, a new cut without training."""

from debias_ssae.review.applying import with_latents
from debias_ssae.review.candidates import Candidate, candidates
from debias_ssae.review.choices import Choices, read_choices, write_choices
from debias_ssae.review.contexts import LEVELS, Context, Piece

__all__ = [
    "LEVELS",
    "Candidate",
    "Choices",
    "Context",
    "Piece",
    "candidates",
    "read_choices",
    "with_latents",
    "write_choices",
]
