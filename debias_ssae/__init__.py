"""Remove spurious attributes from text representations with specialised sparse autoencoders."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Read when torch loads OpenMP: by default its idle threads spin, which costs five times the processor time of one
# thread on small batches (benchmarks/threads.py). Whoever sets it keeps what was set.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# public name -> module; imported on first use, so that ``import debias_ssae`` stays light
_PUBLIC = {
    "ActivationEncoder": "model.encoder",
    "AnnotatedTexts": "selection.attribute",
    "AuditReport": "audit",
    "Choices": "selection.choices",
    "Concept": "text.concept",
    "DebiasConfig": "core.config",
    "InputError": "core.errors",
    "NothingRemovedWarning": "core.errors",
    "SAEConfig": "core.config",
    "SSAEDebiaser": "debiaser",
    "SparseAutoencoder": "sae.model",
    "TrainConfig": "core.config",
    "audit": "audit",
    "discover": "review",
    "load_sae": "sae.formats",
    "probe_leakage": "audit.leakage",
    "train_sae": "sae.training",
    "worst_group_accuracy": "audit",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from debias_ssae.audit import AuditReport as AuditReport
    from debias_ssae.audit import audit as audit
    from debias_ssae.audit import worst_group_accuracy as worst_group_accuracy
    from debias_ssae.audit.leakage import probe_leakage as probe_leakage
    from debias_ssae.core.config import DebiasConfig as DebiasConfig
    from debias_ssae.core.config import SAEConfig as SAEConfig
    from debias_ssae.core.config import TrainConfig as TrainConfig
    from debias_ssae.core.errors import InputError as InputError
    from debias_ssae.core.errors import NothingRemovedWarning as NothingRemovedWarning
    from debias_ssae.debiaser import SSAEDebiaser as SSAEDebiaser
    from debias_ssae.model.encoder import ActivationEncoder as ActivationEncoder
    from debias_ssae.review import discover as discover
    from debias_ssae.sae.formats import load_sae as load_sae
    from debias_ssae.sae.model import SparseAutoencoder as SparseAutoencoder
    from debias_ssae.sae.training import train_sae as train_sae
    from debias_ssae.selection.attribute import AnnotatedTexts as AnnotatedTexts
    from debias_ssae.selection.choices import Choices as Choices
    from debias_ssae.text.concept import Concept as Concept


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'debias_ssae' has no attribute {name!r}")
    return getattr(import_module(f"debias_ssae.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
