"""Counterfactual flips: does the prediction change when only the version of the attribute changes?"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.audit.rates import check_lengths
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import as_json
from debias_ssae.core.stats.shares import wilson
from debias_ssae.text.checks import column
from debias_ssae.text.concept import Concept

MASK = "[…]"
_EDGES = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True)
class FlipReport:
    """Share of predictions that change between a text and its counterfactual; ``examples`` only when texts were asked
    for.
    """

    n_texts: int
    n_with_counterfactual: int
    n_flipped: int
    rate: float
    ci_low: float
    ci_high: float
    by_prediction: tuple[dict[str, Any], ...]
    """Flips by the prediction on the original text: prediction, n, flipped, rate."""
    examples: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; undefined numbers are None."""
        return dict(as_json(vars(self)))


def counterfactual_flips(
    texts: Sequence[str],
    predict: Callable[[list[str]], Any],
    concept: Concept,
    *,
    n_examples: int = 0,
    mask_names: bool = False,
) -> FlipReport:
    """Predict texts and their counterfactuals; a flip is a prediction that differs.

    ``predict`` maps texts to labels. Texts leave this function only with ``n_examples`` > 0, the first that flip;
    ``mask_names`` hides capitalised words inside sentences, numbers and addresses. Raises
    InputError when no text has a counterfactual or ``predict`` returns a wrong number of labels.
    """
    texts = list(texts)
    counterfactuals = [concept.counterfactual(text) for text in texts]
    pairs = [(t, w) for t, w in zip(texts, counterfactuals, strict=True) if w is not None and w != t]
    if not pairs:
        raise InputError(
            f"None of the {len(texts)} texts holds a word of the concept, so there is nothing to swap"
        )
    before, after = (np.asarray(predict(list(side))) for side in zip(*pairs, strict=True))
    for answers in (before, after):
        if answers.shape != (len(pairs),):
            raise InputError(
                f"predict must return one value a text; got shape {answers.shape} for {len(pairs)} texts"
            )
    options: dict[str, Any] = {"texts": pairs, "n_examples": n_examples, "mask_names": mask_names}
    return flips_of_predictions(before, after, n_texts=len(texts), **options)


def flips_of_predictions(
    before: Any,
    after: Any,
    *,
    n_texts: int | None = None,
    texts: Sequence[tuple[str, str]] | None = None,
    n_examples: int = 0,
    mask_names: bool = False,
) -> FlipReport:
    """The same from predictions made elsewhere: ``before`` on the texts, ``after`` on their counterfactuals (missing:
    no counterfactual).

    Of ``texts`` (pairs text, counterfactual) the first ``n_examples`` that flip are kept. Raises InputError when
    the lengths differ or no row has a counterfactual.
    """
    first, second = column(before, "predictions"), column(after, "predictions on counterfactuals")
    check_lengths({"predictions": len(first), "predictions on counterfactuals": len(second)})
    rows = np.flatnonzero((first.notna() & second.notna()).to_numpy())
    if not len(rows):
        raise InputError(
            "No row has both a prediction and a prediction on its counterfactual, so nothing can flip"
        )
    was, now = _names(first.iloc[rows]), _names(second.iloc[rows])
    flipped = was != now
    low, high = wilson(flipped.sum(), len(rows))
    by_prediction = []
    for label in np.unique(was):
        n, k = int((was == label).sum()), int(flipped[was == label].sum())
        by_prediction.append({"prediction": str(label), "n": n, "flipped": k, "rate": k / n})
    shown = masked if mask_names else str
    examples = tuple(
        {
            "text": shown(str(texts[rows[i]][0])),
            "counterfactual": shown(str(texts[rows[i]][1])),
            "prediction": str(was[i]),
            "counterfactual_prediction": str(now[i]),
        }
        for i in np.flatnonzero(flipped)[:n_examples]
        if texts is not None
    )
    return FlipReport(
        n_texts=len(first) if n_texts is None else n_texts,
        n_with_counterfactual=len(rows),
        n_flipped=int(flipped.sum()),
        rate=float(flipped.mean()),
        ci_low=float(low),
        ci_high=float(high),
        by_prediction=tuple(by_prediction),
        examples=examples,
    )


def _names(values: pd.Series) -> Any:
    """Labels as text; a column with gaps reads whole numbers as floats, so 1.0 is 1."""
    return np.array(
        [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values.tolist()]
    )


def masked(text: str, *, begins: bool = True) -> str:
    """The text without what may name somebody: capitalised words inside sentences, numbers, addresses. ``begins``:
    it begins with a sentence.
    """
    words = text.split(" ")
    for i, word in enumerate(words):
        core = _EDGES.sub("", word)
        named = core[:1].isupper() and not begins and core not in {"I", "He", "She", "Mr", "Mrs", "Ms"}
        if named or any(c.isdigit() for c in core) or "@" in core:
            words[i] = word.replace(core, MASK)
        begins = word.endswith((".", "!", "?"))
    return " ".join(words)
