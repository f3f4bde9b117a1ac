"""What does the default remove? Few latents, readable, the same in every training? And which step pays?

python benchmarks/removed.py --data DATA --out benchmarks/results/removed.json --cache CACHE [--only biographies ...]
    [--variants] [--models DIR] [--seeds 5]

DATA holds the folders that docs/everywhere.md lists. Every seed has its own split, start and order of the data. Purity
is measured on the test texts, which nothing was fitted on; worst-group accuracy on texts that are neither the test nor
the group-annotated set ("rest"), so that the steps of the selection can be compared without looking at the test.
--variants leaves out one step of the selection at a time. Resumable: a finished record is not made again.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from everywhere import CASES, LABELS, Case

from debias_ssae import Concept, SSAEDebiaser
from debias_ssae.benchmark.protocol import Protocol, prepare
from debias_ssae.core.config import BenchmarkConfig
from debias_ssae.core.io import write_json
from debias_ssae.core.stats.heads import fit_head
from debias_ssae.selection.naming import find_words, firing
from debias_ssae.text import load_table

HE_SHE = "concept_he_she"
RECURS = 0.8
"""Cosine from which a latent of another training is the same."""
PURE = 0.7
"""Share of a latent's activation mass on the concept's words from which it counts as pure."""
STEPS = ("propagate",)
"""Those before it that did not pay are gone: docs/dictionary.md, Which step pays?"""
SIZES = {"n_test": 60, "n_attribute": 60, "max_head": 400}
LEAST_REST = 15
"""Texts of a cell of the rest; smaller cells do not count."""
NAMES = ("biographies, minilm", "wiki, 2 classes, minilm", "reviews, minilm", "biographies, mpnet")


def main() -> None:
    """Fit every case, supervision, variant and seed that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n-corpus", type=int, default=20_000)
    given = parser.parse_args()
    records = json.loads(given.out.read_text())["records"] if given.out.exists() else []
    done = {(r["case"], r["regime"], r["variant"], r["seed"]) for r in records}
    corpus = load_table(given.data / "general_corpus" / "data.parquet", text="text")["text"].tolist()
    for name in NAMES:
        if given.only and not any(part in name for part in given.only):
            continue
        case = CASES[name]
        protocol = protocol_of(case, given, corpus)
        for regime in regimes_of(case):
            steps = () if regime == LABELS else STEPS
            variants = ("default", *(f"no {step}" for step in steps)) if given.variants else ("default",)
            for seed, variant in itertools.product(range(given.seeds), variants):
                if (name, regime, variant, seed) not in done:
                    key = {"case": name, "regime": regime, "seed": seed}
                    base = [r for r in records if r.items() >= (key | {"variant": "default"}).items()]
                    found = fitted(protocol, regime, variant, seed, given.cache, base[0] if base else None)
                    records.append(key | {"variant": variant} | found)
                    write_json(given.out, {"records": records})
                    print(
                        name,
                        regime,
                        variant,
                        seed,
                        records[-1]["worst_group"],
                        records[-1]["names"],
                        flush=True,
                    )
    found = summary(records, given.cache)
    write_json(given.out, {"records": records, "summary": found})
    print(markdown(found))


def regimes_of(case: Case) -> tuple[str, ...]:
    """Labels, the whole list and, of gender's, two words alone."""
    return (*case.regimes, HE_SHE) if case.concept == "gender" else case.regimes


def protocol_of(case: Case, given: argparse.Namespace, corpus: list[str]) -> Protocol:
    """The benchmark's splits of this case."""
    encoder = case.encoder if case.encoder == "minilm" else str(given.models / case.encoder)
    config = BenchmarkConfig(
        encoder=encoder, concept=case.concept, seeds=given.seeds, n_corpus=given.n_corpus, **SIZES
    )
    return prepare(case.load(given.data), config, corpus=corpus, cache_dir=given.cache)


def fitted(
    protocol: Protocol, regime: str, variant: str, seed: int, cache: Path, base: dict[str, Any] | None
) -> dict[str, Any]:
    """Fit once; return what was removed, how pure it is, and worst-group accuracies on the rest.

    Where the latents are those of ``base``, everything else is too.
    """
    split = protocol.splits[seed]
    head, test, rest = (protocol.samples(rows) for rows in (split.head, split.test, split.rest))
    config = {} if variant == "default" else {"selection": {variant.removeprefix("no "): False}}
    words = regime != LABELS
    debiaser = SSAEDebiaser(
        protocol.encoder,
        attribute=protocol.supervision(regime, seed).attribute,
        corpus=protocol.corpus,
        # the same eraser after every edit, so that the variants differ in nothing else
        output_eraser="counterfactual" if words else "mean_difference",
        cache_dir=cache,
        config=config,
        random_state=seed,
    ).fit(head.texts, head.y, exclude=[*test.texts, *rest.texts])
    one = debiaser.intervention_
    ids = one.selection.ids
    if base is not None and base["ids"] == ids.tolist():
        return {k: v for k, v in base.items() if k not in ("case", "regime", "variant", "seed")}
    worded = find_words(test.texts, debiaser.text_encoder_.rows(test.texts, "embeddings"))
    fired = firing(one.sae, worded.rows.x, ids.tolist())
    listed = np.isin(worded.word_ids, concept_words(worded.words, protocol.concept))
    mass = fired.sum(axis=0)
    plain, edited = debiaser.text_encoder_.encode, debiaser.transform
    return {
        "ids": ids.tolist(),
        "names": one.selection.report.get("names", []),
        "n": len(ids),
        "d_sae": one.sae.cfg.d_sae,
        "mass": mass.tolist(),
        "purity": [float(f[listed].sum() / f.sum()) if f.sum() else None for f in fired.T]
        if protocol.concept is not None
        else None,
        "worst_group": {
            "erm": worst_group(plain, plain, head, rest),
            "retrained": worst_group(edited, edited, head, rest),
            "frozen": worst_group(plain, edited, head, rest),
        },
        **directions(one.sae, ids, worded.rows.x, cache, protocol, regime, variant, seed),
    }


def concept_words(words: tuple[str, ...], concept: Concept | None) -> list[int]:
    """Places of the concept's words, first names and other optional sections included."""
    if concept is None:
        return []
    every = {w.casefold() for pair in (*concept.pairs, *concept.optional) for w in pair.words}
    return [i for i, word in enumerate(words) if word.casefold() in every]


def worst_group(shown: Any, used: Any, head: Any, rest: Any) -> float | None:
    """Accuracy of the worst cell of ``rest`` for a head that learnt from ``shown`` and is given ``used``."""
    model = fit_head(shown(head.texts), head.y, C=0.1)
    right = model.predict(used(rest.texts)) == rest.y
    cells = [right[(rest.y == c) & (rest.z == g)] for c, g in set(zip(rest.y, rest.z, strict=True))]
    return min((float(cell.mean()) for cell in cells if len(cell) >= LEAST_REST), default=None)


def directions(
    sae: Any, ids: np.ndarray, x: Any, cache: Path, protocol: Protocol, regime: str, variant: str, seed: int
) -> dict[str, Any]:
    """Keep the unit decoder rows of the live latents, which the other seeds look theirs up in."""
    fires = np.zeros(sae.cfg.d_sae, dtype=bool)
    for part in x.split(4096):
        fires |= (sae.encode(part) > 0).any(dim=0).numpy()
    W = sae.W_dec.detach().float().numpy()
    W = W / np.linalg.norm(W, axis=1, keepdims=True)
    name = f"{protocol.data_key[:12]}-{regime}-{variant.replace(chr(32), '_')}-{seed}"
    file = cache / "directions" / f"{name}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, removed=W[ids], live=W[fires].astype(np.float16))
    return {"directions": file.name, "dead": float(1 - fires.mean())}


def summary(records: list[dict[str, Any]], cache: Path) -> list[dict[str, Any]]:
    """One record for each case, supervision and variant."""
    found = []
    for key in dict.fromkeys((r["case"], r["regime"], r["variant"]) for r in records):
        own = [r for r in records if (r["case"], r["regime"], r["variant"]) == key]
        pairs = [recurrence(a, b, cache) for a, b in itertools.permutations(own, 2)]
        purities = [p for r in own for p in (r["purity"] or []) if p is not None]
        base = [r for r in records if (r["case"], r["regime"], r["variant"]) == (*key[:2], "default")]
        found.append(
            {
                "case": key[0],
                "regime": key[1],
                "variant": key[2],
                "n_seeds": len(own),
                "latents": [r["n"] for r in own],
                "names": [len(set(r["names"])) for r in own],
                "recurrence": float(np.mean(pairs)) if pairs else None,
                "pure": float(np.mean([p >= PURE for p in purities])) if purities else None,
                **{
                    head: float(np.mean([r["worst_group"][head] for r in own]))
                    for head in ("erm", "retrained", "frozen")
                },
                "pays": {head: pays(base, own, head) for head in ("retrained", "frozen")},
            }
        )
    return found


def recurrence(one: dict[str, Any], other: dict[str, Any], cache: Path) -> float:
    """Share of the activation mass of what ``one`` removed that has a live latent like it in ``other``."""
    if not one["n"]:
        return float("nan")
    folder = cache / "directions"
    a = np.load(folder / one["directions"])["removed"]
    b = np.load(folder / other["directions"])["live"].astype(np.float32)
    best = (a @ b.T).max(axis=1)
    return float(np.average(best >= RECURS, weights=one["mass"]))


def pays(base: list[dict[str, Any]], without: list[dict[str, Any]], head: str) -> list[float] | None:
    """What the step brings (with it minus without it): mean and 95% interval over seeds, Student's t."""
    from scipy.stats import t

    left_out = {r["seed"]: r["worst_group"][head] for r in without}
    gains = np.array([r["worst_group"][head] - left_out[r["seed"]] for r in base if r["seed"] in left_out])
    if (without and without[0]["variant"] == "default") or len(gains) < 2:
        return None
    half = float(t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains)))
    return [float(gains.mean()), float(gains.mean()) - half, float(gains.mean()) + half]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Two tables: the default, and what each step brings."""
    lines = [
        "| case | supervision | seeds | latents | names | recurrence | pure | ERM | retrained | frozen |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in (r for r in rows if r["variant"] == "default"):
        recurs, pure = (f"{r[k]:.2f}" if r[k] is not None else "–" for k in ("recurrence", "pure"))
        latents, names = (f"{min(r[k])} to {max(r[k])}" for k in ("latents", "names"))
        lines.append(
            f"| {r['case']} | {r['regime']} | {r['n_seeds']} | {latents} | {names} | {recurs} | {pure} "
            f"| {r['erm']:.2f} | {r['retrained']:.3f} | {r['frozen']:.3f} |"
        )
    lines += [
        "",
        "| case | supervision | step | brings, retrained | brings, frozen | latents without it |",
        "|---|---|---|---|---|---|",
    ]
    for r in (r for r in rows if r["variant"] != "default"):
        brought = [
            "–" if p is None else f"{p[0]:+.3f} ({p[1]:+.3f} to {p[2]:+.3f})" for p in r["pays"].values()
        ]
        lines.append(
            f"| {r['case']} | {r['regime']} | {r['variant'].removeprefix('no ')} | {brought[0]} | {brought[1]} "
            f"| {min(r['latents'])} to {max(r['latents'])} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
