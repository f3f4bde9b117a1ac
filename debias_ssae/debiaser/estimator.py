"""``SSAEDebiaser``: scikit-learn in front, no algorithm inside."""

import copy
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from debias_ssae.core.cache import trim
from debias_ssae.core.config import DebiasConfig, load_config
from debias_ssae.core.device import plain_precision
from debias_ssae.core.errors import InputError, NothingRemovedWarning
from debias_ssae.core.steps import show_progress
from debias_ssae.debiaser import persistence
from debias_ssae.debiaser.inputs import read_fit
from debias_ssae.debiaser.matrix import MatrixEncoder
from debias_ssae.debiaser.output import FROM_LABELS, FROM_WORDS, KINDS, apply_output
from debias_ssae.debiaser.pipeline import Intervention, edits_of, fit, fit_after_edit
from debias_ssae.debiaser.summary import html, sentences
from debias_ssae.erase import LatentEraser
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.attribute import Attribute, Nothing, Words, members, nothing_known
from debias_ssae.text.checks import check_texts, read_matrix
from debias_ssae.text.concept import Concept


@dataclass(eq=False, repr=False)
class SSAEDebiaser(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Remove an attribute from text representations with a specialised sparse autoencoder.

    Parameters
    ----------
    encoder : str, ActivationEncoder or None, default=None
        The language model ("minilm", a directory, a hub id). With None, ``X`` is a matrix of activations.
    attribute : str, path, Concept, AnnotatedTexts, Choices, Attribute, a list of these, or None, default=None
        What is known of the attribute. With None, labels are given to ``fit`` as ``sensitive_features``. A concept (the
        name of one that ships with the package, a file, or a Concept) describes it by words to swap and needs no
        labels. AnnotatedTexts are labels of other texts. Choices are latents that a person ticked, also as the path of
        their file or of the folder that ``discover`` wrote. In a list, each attribute has its own selection, and all
        are removed together. An object with a method ``select`` works as well
        (docs/extend.md).
    corpus : path or sequence of str, optional
        Texts to retrieve the subdomain from. Without it the training texts are used alone.
    sae : path or SparseAutoencoder, optional
        A general SAE to fine-tune, in any format this package reads; for several hookpoints a mapping.
    hookpoint : str or sequence of str, default="embeddings"
        Where the model is edited; several are edited in one pass, each with an SAE of its own.
    layer, pooling : str, default="final", "auto"
        The representation that is returned. An ActivationEncoder given as ``encoder`` has its own, and its
        max_length also limits the texts that are learnt from.
    n_latents : int or "auto", default="auto"
        How many latents to remove at most; "auto" removes the smallest set that suffices (docs/method.md).
    alpha : float, default=1.0
        Share of the latents' contribution that is removed; 0 returns the plain representation, bit-identical.
    output_eraser : {"auto", "counterfactual", "counterfactual_subspace", "mean_difference", "leace", "leace_overall", \
            "displacement", None} or transformer
        A linear eraser of the pooled output, after the edit, which a classifier that is not retrained needs. In this
        order: the direction between counterfactual pairs, all directions in which they differ, the groups' mean
        difference (these three in the plain model), LEACE of what is left after the edit, inside the classes or over
        all texts, the directions in which the edit moved the texts (and in which they move without the words that it
        acts on), none, or a transformer of your own. "auto" compares those that ``attribute`` allows, after the edit
        and without it, by cross-validation on the training data, and keeps the edit unless something else is clearly
        better (``report_["choice"]``); of a fine-tuned classifier it is none, since its output's direction is that of
        the classes too. Any other value is used as given; with ``n_latents=0`` without an edit.
    cache_dir : path, "auto" or None, default="auto"
        Keeps embeddings and SAEs between fits. "auto" is the user's cache (``debias-ssae cache info``), which holds
        the corpus's embeddings, the retrieved texts and the SAEs; a path also keeps the representations of every text.
    device : str, default="auto"
        Where the language model and the SAE run: auto, cpu, cuda, cuda:1, ...
    config : DebiasConfig, mapping or path of a YAML file, optional
        All other settings.
    random_state : int, RandomState or None
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    interventions_ : dict of str to Intervention
        For each hookpoint its SAE, the selection of latents (``selection.ids``, ``selection.scores``), the eraser and
        the record of training.
    output_eraser_ : LinearEraser, transformer or None
    shift_ : ndarray or None
        Added to the output so that the training mean stays where it was (``config.recenter``; some output erasers have
        a centre of their own).
    output_kind_ : str or None
        The output eraser that was used; for ``output_eraser="auto"`` the one that was picked.
    report_ : dict
        What ``summary`` says, as JSON.
    concept_ : Concept or None
        The concept as it was read, where ``attribute`` is one.

    Notes
    -----
    Regimes of supervision are never mixed: with ``attribute=`` the labels given to ``fit`` are not read, unless
    ``output_eraser`` is "leace", "leace_overall" or "mean_difference".
    """

    encoder: str | Path | ActivationEncoder | None = None
    _: KW_ONLY
    attribute: str | Path | Concept | Attribute | Sequence[Any] | None = None
    corpus: str | Path | Sequence[str] | None = None
    sae: str | Path | SparseAutoencoder | Mapping[str, Any] | None = None
    hookpoint: str | Sequence[str] = "embeddings"
    layer: str = "final"
    pooling: str = "auto"
    n_latents: int | str = "auto"
    alpha: float = 1.0
    output_eraser: Any = "auto"
    cache_dir: str | Path | None = "auto"
    device: str = "auto"
    config: DebiasConfig | Mapping[str, Any] | str | Path | None = None
    random_state: Any = None
    verbose: bool = False

    _probes: np.ndarray | None = field(default=None, init=False)
    """Of a loaded debiaser: what its encoder gave for known texts when it was saved; None once that was compared."""

    @plain_precision()
    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None, exclude: Any = None) -> Self:
        """Learn what to remove.

        Parameters
        ----------
        X : texts, or a matrix ``(n, d)`` where ``encoder`` is None
        y : target ``(n,)``, optional
            With labels, the attribute's effect is looked for inside each class.
        sensitive_features : ``(n,)`` or ``(n, k)``, optional
            Samples with a missing value, here or in ``y``, train the SAE and are left out of the selection.
        exclude : sequence of str, optional
            Texts, such as a test set's, that never enter retrieval, training or selection, even if ``X``, the
            corpus or annotated texts repeat them.

        Raises
        ------
        InputError
            For unusable parameters or data, with the cure; nothing is fitted then.
        """
        self._forget()
        if self.encoder is None:
            if _are_texts(X):
                raise InputError('X holds texts, but encoder is None; name one: SSAEDebiaser("minilm", ...)')
            X = read_matrix(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        spec, data = read_fit(self, X, y, sensitive_features, exclude)
        if why := nothing_known(spec.attribute):
            warnings.warn(why, NothingRemovedWarning, stacklevel=2)
        started = time.monotonic()
        with show_progress(self.verbose):
            fitted = fit(spec, data)
        self.encoder_, self.concept_ = spec.encoder, _concept_of(spec.attribute)
        self.interventions_ = fitted.interventions
        self.output_eraser_, self.output_kind_ = fitted.output_eraser, fitted.output_kind
        self.shift_ = fitted.shift
        self.report_: dict[str, Any] = {
            "removed": {name: _removed(one) for name, one in fitted.interventions.items()},
            "output_eraser": fitted.output_kind,
            "choice": fitted.choice,
            "measured": fitted.measured,
            "seconds": round(time.monotonic() - started, 1),
        }
        if self.cache_dir == "auto" and spec.cache_dir is not None:
            trim(spec.cache_dir)
        self.n_features_out_ = X.shape[1] if self.encoder is None else self.text_encoder_.width
        return self

    @plain_precision()
    def transform(self, X: Any) -> np.ndarray:
        """Return debiased representations ``(n, d)``. The attribute is never needed."""
        check_is_fitted(self)
        if self.encoder is None:
            X = read_matrix(self, X, reset=False, dtype=[np.float64, np.float32])
        else:
            X = check_texts(X)
            if self._probes is not None:
                persistence.check_model(self, self._probes)
                self._probes = None
        with show_progress(self.verbose):
            return self._finished(self.encoder_.encode(X, self.edits))

    def _finished(self, x: np.ndarray) -> np.ndarray:
        x = apply_output(self.output_eraser_, x)
        return x if self.shift_ is None else x + self.shift_

    @property
    def edits(self) -> dict[str, LatentEraser]:
        """The erasers by hookpoint; those that change nothing are left out."""
        return edits_of(self.interventions_)

    @property
    def text_encoder_(self) -> ActivationEncoder:
        """The encoder of texts. Raises InputError for a debiaser of a matrix, which has none."""
        if isinstance(self.encoder_, MatrixEncoder):
            raise InputError("this debiaser works on a matrix and has no encoder of texts")
        return self.encoder_

    @property
    def intervention_(self) -> Intervention:
        """The intervention at the first hookpoint."""
        return next(iter(self.interventions_.values()))

    def summary(self) -> str:
        """Return what ``fit`` did: what was removed, what a probe still reads, what it cost the target, its time."""
        check_is_fitted(self)
        return "\n".join(sentences(self.report_))

    def _repr_html_inner(self) -> str:
        shown: str = super()._repr_html_inner()
        return shown + html(self.report_) if hasattr(self, "report_") else shown

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**options)
        if "text/html" in bundle:
            bundle["text/html"] = self._repr_html_inner()
        return bundle

    @plain_precision()
    def with_latents(
        self,
        latents: Mapping[str, Sequence[int] | np.ndarray],
        X: Any = None,
        y: Any = None,
        *,
        sensitive_features: Any = None,
    ) -> Self:
        """Return a copy that removes other latents; nothing is trained.

        Parameters
        ----------
        latents : mapping of hookpoint to ids
            Hookpoints that are not named stay as they are.
        X, y, sensitive_features :
            The training texts, and the labels that ``fit`` had. They are needed if a step after the edit depends on
            the edit: a shift, or an output eraser that is fitted on edited representations.

        Raises
        ------
        InputError
            For unknown hookpoints and ids, and where texts or labels are needed and missing.
        """
        check_is_fitted(self)
        if strange := sorted(set(latents) - set(self.interventions_)):
            raise InputError(
                f"{strange[0]!r} is not edited; this debiaser edits {', '.join(self.interventions_)}"
            )
        new = copy.copy(self)
        new.interventions_ = {
            name: one.with_latents(np.asarray(latents[name], dtype=np.int64)) if name in latents else one
            for name, one in self.interventions_.items()
        }
        if all(
            np.array_equal(one.selection.ids, new.interventions_[name].selection.ids)
            for name, one in self.interventions_.items()
        ):
            return new
        stays = self.output_kind_ in FROM_WORDS or (
            self.output_kind_ is None and not load_config(DebiasConfig, self.config).recenter
        )
        if not (stays and bool(self.edits) == bool(new.edits)):
            new._fit_after_edit(X, y, sensitive_features)
        return new

    def _fit_after_edit(self, X: Any, y: Any, sensitive_features: Any) -> None:
        if X is None:
            raise InputError(
                "what follows the edit (the shift, or the output eraser) depends on what is removed; give the training "
                "texts (--data)"
            )
        asking = copy.copy(self)
        if self.output_kind_ in FROM_LABELS and sensitive_features is None and self.attribute is None:
            raise InputError(
                f'output_eraser="{self.output_kind_}" is fitted on labels; give those of the training texts as well '
                "(--sensitive)"
            )
        if self.output_kind_ is None or self.output_kind_ in KINDS:  # what was picked stays
            asking.output_eraser = self.output_kind_
        if self.output_kind_ in (None, "displacement"):  # which need no knowledge of the attribute
            asking.attribute = Nothing()
        spec, data = read_fit(asking, X, y, sensitive_features, None)
        fitted = fit_after_edit(replace(spec, encoder=self.encoder_), self.interventions_, data)
        self.output_eraser_, self.output_kind_ = fitted.output_eraser, fitted.output_kind
        self.shift_ = fitted.shift
        self.report_ = {
            **self.report_,
            "removed": {name: _removed(one) for name, one in self.interventions_.items()},
            "measured": fitted.measured,
        }

    def save(self, directory: str | Path, *, overwrite: bool = False) -> None:
        """Write one directory of safetensors and JSON, atomically.

        Raises InputError for what cannot be saved, and for a directory that holds something already, unless that is a
        debiaser and ``overwrite`` is true.
        """
        check_is_fitted(self)
        persistence.save(self, Path(directory), overwrite=overwrite)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        encoder: str | Path | ActivationEncoder | None = None,
        device: str = "auto",
        cache_dir: str | Path | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Read what ``save`` wrote; nothing about trust, devices or places to write is taken from the files.

        Parameters
        ----------
        directory : path
        encoder : optional
            The language model, where the one named in the files is not to be loaded.
        device, cache_dir, trust_remote_code :
            As in ``ActivationEncoder``; code of the model's own runs only with ``trust_remote_code=True``.

        Raises
        ------
        InputError
            For anything else than a whole and undamaged directory.
        """
        return persistence.load(
            cls,
            Path(directory),
            encoder=encoder,
            device=device,
            cache_dir=cache_dir,
            trust_remote_code=trust_remote_code,
        )

    def _forget(self) -> None:
        """Drop what an earlier fit has learnt, so that one that fails leaves nothing fitted."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_out_")  # what fit sets last

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if self.encoder is not None:
            tags.input_tags.string = True
            tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"] if self.encoder is None else []
        return tags


def _are_texts(X: Any) -> bool:
    is_flat = isinstance(X, list | tuple | np.ndarray | pd.Series) and getattr(X, "ndim", 1) == 1
    return is_flat and len(X) > 0 and all(isinstance(x, str) for x in X)


def _removed(one: Intervention) -> dict[str, Any]:
    names = dict(Counter(one.selection.report.get("names", [])))  # two latents of one name say the same
    return {"n": len(one.selection.ids), "d_sae": one.sae.cfg.d_sae, "names": names}


def _concept_of(attribute: Any) -> Concept | None:
    """The concept, where there is just one."""
    concepts = [one.concept for one in members(attribute) if isinstance(one, Words)]
    return concepts[0] if len(concepts) == 1 and len(members(attribute)) == 1 else None
