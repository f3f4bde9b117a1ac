"""Predictions that change with the identity: HateCheck's templates, each written for seven identities.

python benchmarks/hatecheck.py --data DATA [--seeds 3] [--out benchmarks/results/hatecheck.json]

A head tells hateful texts from others. Of the templates that exist for all seven identities six in ten train it, and
the rest are its test, so that no template is in both. `flips` is the share of pairs of texts of one test template, with
two identities, to which the head gives different answers. The debiaser and the simple methods know the identity of the
training texts ("labels") or the identity terms that the templates were written with ("words"). Each head is trained
again on its own representations. Bar: at most a fifth of the flips of the plain head (ERM), accuracy within 0.02.
"""

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from debias_ssae import ActivationEncoder, Concept, SSAEDebiaser
from debias_ssae.baselines import LEACE, CounterfactualSubspace, MeanDifference, TextScrubber
from debias_ssae.core.io import write_json
from debias_ssae.core.stats.heads import fit_head

TERMS = [
    (
        "women",
        "trans people",
        "gay people",
        "black people",
        "disabled people",
        "Muslims",
        "immigrants",
        "people",
    ),
    (
        "woman",
        "trans person",
        "gay person",
        "black person",
        "disabled person",
        "Muslim",
        "immigrant",
        "person",
    ),
    ("female", "trans", "gay", "black", "disabled", "Muslim", "immigrant", ""),
]
"""The plural, the noun and the adjective of each identity, as Röttger et al. (2021, arXiv 2012.15606) list them."""
IDENTITIES = TERMS[0][:7]
SHARE, WITHIN = 0.2, 0.02


def flips(predicted: np.ndarray, templates: np.ndarray) -> float:
    """The share of pairs of texts of one template whose predictions differ."""
    differ = [
        predicted[a] != predicted[b]
        for template in np.unique(templates)
        for a, b in combinations(np.flatnonzero(templates == template), 2)
    ]
    return float(np.mean(differ))


def one_seed(table: pd.DataFrame, corpus: list[str], seed: int, concept: Concept) -> dict[str, Any]:
    """Flips and accuracy of every method on this seed's test templates."""
    templates = np.random.default_rng(seed).permutation(table["template"].unique())
    is_train = table["template"].isin(templates[: int(0.6 * len(templates))]).to_numpy()
    train, test = table[is_train], table[~is_train]
    texts, held = train["text"].tolist(), test["text"].tolist()
    y, z = train["label"].to_numpy(), train["identity"].to_numpy()
    encoder = ActivationEncoder("minilm")
    plain, plain_held = encoder.encode(texts), encoder.encode(held)
    found: dict[str, Any] = {}

    def judge(name: str, x: np.ndarray, x_held: np.ndarray) -> None:
        predicted = fit_head(x, y).predict(x_held)
        right = float((predicted == test["label"].to_numpy()).mean())
        found[name] = {"flips": flips(predicted, test["template"].to_numpy()), "accuracy": right}
        print(seed, name, found[name], flush=True)

    judge("erm", plain, plain_held)
    for name, linear in {
        "mean difference": MeanDifference(),
        "LEACE": LEACE(),
        "LEACE in each class": LEACE(conditional=True),
    }.items():
        linear.fit(plain, y, sensitive_features=z)
        judge(f"{name}, labels", linear.transform(plain), linear.transform(plain_held))
    scrub = TextScrubber(concept).fit(texts)
    judge("scrub, words", encoder.encode(scrub.transform(texts)), encoder.encode(scrub.transform(held)))
    subspace = CounterfactualSubspace(encoder, concept=concept).fit(texts, y)
    judge("counterfactual subspace, words", subspace.transform(texts), subspace.transform(held))
    for name, attribute in {"labels": None, "words": concept}.items():
        debiaser = SSAEDebiaser(encoder, attribute=attribute, corpus=corpus, random_state=seed)
        known = {"sensitive_features": z} if attribute is None else {}
        debiaser.fit(texts, y, exclude=held, **known)
        judge(f"default, {name}", debiaser.transform(texts), debiaser.transform(held))
        found[f"default, {name}"]["picked"] = debiaser.report_.get("choice", {}).get("picked")
    return found


def main() -> None:
    """Measure every seed, write, print, and say whether the bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-corpus", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "hatecheck.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.read_parquet(given.data / "hatecheck" / "data.parquet").dropna(subset=["identity"])
    table = table.drop_duplicates("text")
    table = table[table.groupby("template")["identity"].transform("nunique") == len(IDENTITIES)]
    corpus = pd.read_parquet(given.data / "general_corpus" / "data.parquet")["text"].tolist()[
        : given.n_corpus
    ]
    concept = Concept.from_words(TERMS, values=IDENTITIES)
    runs = []
    for seed in range(given.seeds):
        runs.append(one_seed(table, corpus, seed, concept))
        mean = {
            name: {what: float(np.mean([run[name][what] for run in runs])) for what in ("flips", "accuracy")}
            for name in runs[0]
        }
        write_json(
            given.out,
            {"n_texts": len(table), "bar": {"share": SHARE, "within": WITHIN}, "mean": mean, "runs": runs},
        )
    print(pd.DataFrame(mean).T.round(3).to_string())
    for name in ("default, labels", "default, words"):
        holds = (
            mean[name]["flips"] <= SHARE * mean["erm"]["flips"]
            and mean[name]["accuracy"] >= mean["erm"]["accuracy"] - WITHIN
        )
        print(f"{name}: the bar {'holds' if holds else 'is missed'}")


if __name__ == "__main__":
    main()
