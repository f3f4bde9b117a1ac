"""All measures of one SAE on a model and texts: sections that are kept as they are done, evaluation.json, one page.

Each section is written to OUT/parts under a name that holds what it was made from, so that a stopped run goes on and
a changed setting is measured anew.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from debias_ssae.audit.page import (
    Block,
    Cell,
    Figure,
    Series,
    Table,
    dot_plot,
    make_table,
    number_cell,
    render,
)
from debias_ssae.core import io
from debias_ssae.core.config import EvaluationConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import Activations, LanguageModel, harvest
from debias_ssae.model.causal import CausalModel, answer_gradients, next_tokens, vocabulary_words
from debias_ssae.sae.evaluation import Record, absorption, geometry, probing, record, tokens, values_of
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.naming import (
    WordedRows,
    find_contexts,
    find_words,
    firing,
    naming_words,
    word_shares,
)
from debias_ssae.selection.scores import pooled_latents
from debias_ssae.text.concept import Concept

VERSION = 2
"""Of what the sections compute; a new number measures anew."""
TEMPLATE = "{word} has the first letter:"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOST_VALUES = 10
"""Values of a labelled column that are probed, the most frequent ones."""
MIN_LABELLED = 20
N_EXCERPTS = 5
"""Excerpts with the latent and as many without it, for a judge."""
QUESTION = (
    "A feature of a language model is active on: {words}.\nExcerpt: {excerpt}\nIs it active in the excerpt? "
    "Answer yes or no."
)
NEUTRAL = 5
"""Tokens outside a concept for each of its own, in the absorption of a concept."""


class Part(NamedTuple):
    """Texts with their token activations and one pass of the SAE over them."""

    texts: list[str]
    rows: Activations
    run: tokens.TokenPass
    other: tokens.TokenPass | None
    """The reference's pass over the same tokens."""
    counts: np.ndarray
    """Tokens of each type [n_vocabulary] in the general texts, or where there are none in these."""

    @property
    def ids(self) -> np.ndarray:
        """Token types [n]."""
        return self.rows.token_ids.numpy()


@dataclass(eq=False)
class Subject:
    """What is evaluated, and on what."""

    sae: SparseAutoencoder
    model: LanguageModel
    hookpoint: str
    texts: Sequence[str]
    general: Sequence[str] = ()
    labels: pd.DataFrame | None = None
    """Columns of labels of ``texts``."""
    reference: SparseAutoencoder | None = None
    """The SAE to compare with: the general SAE that this one was fine-tuned from, say."""
    causal: CausalModel | None = None
    concept: Concept | None = None
    judge: Callable[[str], bool] | None = None
    """Answers yes or no to a question that holds excerpts of the texts."""
    config: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0

    @cached_property
    def parts(self) -> dict[str, Part]:
        """Domain and general texts, harvested once."""
        made: dict[str, Part] = {}
        counts = np.zeros(self.model.n_embeddings, np.int64)
        sources = {"general": list(self.general), "domain": [self.texts[i] for i in self.picked]}
        for name, texts in sources.items():
            if not texts:
                continue
            texts = texts if name == "domain" else [texts[i] for i in _whole_texts(texts, self)]
            rows = harvest(self.model.with_limits(self.config.max_length), texts, self.hookpoint)
            if not counts.any():
                counts = np.bincount(rows.token_ids.numpy(), minlength=len(counts))
            other = None if self.reference is None else tokens.encode_tokens(self.reference, rows.x)
            made[name] = Part(texts, rows, tokens.encode_tokens(self.sae, rows.x), other, counts)
        return made

    @cached_property
    def picked(self) -> np.ndarray:
        """Which of the texts are looked at."""
        return _whole_texts(self.texts, self)

    @cached_property
    def pooled(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean states and mean latents of the domain texts."""
        rows = self.parts["domain"].rows
        return rows.pool().numpy(), pooled_latents(self.sae, rows)[0]

    def labelled(self) -> dict[str, pd.Series]:
        """Columns of labels with two values or more, of the texts looked at."""
        if self.labels is None:
            return {}
        return {c: s for c, s in self.labels.iloc[self.picked].items() if s.nunique() > 1}  # type: ignore[misc]

    def train(self) -> np.ndarray:
        """Which of the texts looked at teach probes; the others test them."""
        return np.random.default_rng(self.seed).random(len(self.picked)) < 0.7

    def key(self, section: str) -> str:
        """Hexadecimal id of what a section is made from."""
        labels = "" if self.labels is None else self.labels.to_json()
        return io.fingerprint(
            VERSION, section, self.sae.fingerprint(), self.model.fingerprint, self.hookpoint, self.texts, self.general,
            labels, self.reference and self.reference.fingerprint(), self.causal is not None,
            self.concept and self.concept.sha256, self.judge is not None, self.config, self.seed,
        )[:16]  # fmt: skip


def _whole_texts(texts: Sequence[str], subject: Subject) -> np.ndarray:
    """Numbers of texts, drawn at random, that together have about as many tokens as are asked for."""
    order = np.random.default_rng(subject.seed).permutation(len(texts))
    head = [texts[i] for i in order[:100]]
    ids = subject.model.tokenizer(head, truncation=True, max_length=subject.config.max_length)["input_ids"]
    n = max(2, math.ceil(subject.config.n_tokens / max(float(np.mean([len(one) for one in ids])), 1)))
    return np.sort(order[:n])


def reconstruction_section(s: Subject) -> list[Record]:
    """Fit, sparsity and description length, domain and general texts apart."""
    found: list[Record] = []
    for name, part in s.parts.items():
        deciles = tokens.frequency_deciles(part.ids, part.counts)
        records = [
            *tokens.reconstruction(part.run, deciles),
            *tokens.error_by_rank(part.run, part.ids, part.counts),
        ]
        theirs = [] if part.other is None else tokens.reconstruction(part.other, deciles)
        fvus = [fvu for found in (records, theirs) for fvu in values_of(found, "fvu", decile=None)]
        target = s.config.target_fvu or 1.01 * max(fvus)
        records += tokens.description_length(s.sae, part.rows.x, part.run, target)
        if part.other is not None and s.reference is not None:
            theirs += tokens.description_length(s.reference, part.rows.x, part.other, target)
        records += [{**r, "of": "reference"} for r in theirs]
        ids = tokens.dense_latents(part.run.latents)
        if len(ids):
            worded = find_words(part.texts, part.rows)
            fired = firing(s.sae, part.rows.x, ids.tolist())
            for i, latent in enumerate(ids):
                contexts = find_contexts(worded, fired[:, i], n_contexts=3)
                shown = ["".join(piece.text for piece in context) for context in contexts]
                rate = float((fired[:, i] > 0).mean())
                records.append(record("dense_latent", rate, latent=int(latent), contexts=shown))
        found += [{"part": name, **r} for r in records]
    return found


def downstream_section(s: Subject) -> list[Record]:
    """Cross-entropy with the SAE's reconstruction in the model's place, beside zeros and the mean row."""
    if s.causal is None:
        return []
    causal = replace(s.causal, body=s.causal.body.with_limits(s.config.max_length))
    found: list[Record] = []
    for name, part in s.parts.items():
        mean = part.rows.x.mean(0)
        splices: dict[str, Any] = {
            "sae": splice(s.sae), "zero": torch.zeros_like, "mean": lambda rows, m=mean: m.to(rows).expand_as(rows),
        }  # fmt: skip
        if s.reference is not None:
            splices["reference"] = splice(s.reference)
        options = {"max_positions": s.config.n_positions, "random_state": s.seed}
        scored = next_tokens(causal, part.texts, s.hookpoint, splices, **options)
        found += [{"part": name, **r} for r in loss_records(scored.loss, scored.kl)]
    return found


def splice(sae: SparseAutoencoder) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return an edit that puts an SAE's reconstruction in the place of the activations."""

    @torch.no_grad()
    def edit(rows: torch.Tensor) -> torch.Tensor:
        return sae(rows.to(sae.W_enc)).x_hat.to(rows)

    return edit


def loss_records(loss: Mapping[str, np.ndarray], kl: Mapping[str, np.ndarray]) -> list[Record]:
    """Return cross-entropy, perplexity, loss recovered and KL of each splice; ``loss`` holds "clean" and "zero" too.

    Loss recovered is the share of the gap between the ablated and the clean model that the splice keeps: 1 for the
    identity, 0 for the ablation itself.
    """
    means = {name: float(values.mean()) for name, values in loss.items()}
    found: list[Record] = []
    for name, mean in means.items():
        where = {"splice": name, "n_positions": len(loss[name])}
        found += [record("cross_entropy", mean, **where), record("perplexity", math.exp(mean), **where)]
        if name in kl:
            found.append(record("kl", float(kl[name].mean()), **where))
        for base in (b for b in ("zero", "mean") if b in means and name in kl):
            gap = means[base] - means["clean"]
            recovered = (means[base] - mean) / gap if gap else float("nan")
            found.append(record(f"loss_recovered_{base}", recovered, **where))
    return found


def tail_section(s: Subject) -> list[Record]:
    """Coverage of token types and activation counts; against the reference where there is one."""
    found: list[Record] = []
    for name, part in s.parts.items():
        records = tokens.coverage(part.run.latents, part.ids, part.counts)
        other = None if part.other is None else part.other.latents
        if other is not None:
            records += [{**r, "of": "reference"} for r in tokens.coverage(other, part.ids, part.counts)]
        same = other is not None and other.shape == part.run.latents.shape
        records += tokens.activation_counts(part.run.latents, other if same else None)
        found += [{"part": name, **r} for r in records]
    return found


def geometry_section(s: Subject) -> list[Record]:
    """The decoder's cosines, what it shares with the reference, and hedging between two labelled columns."""
    part = s.parts["domain"]
    W, rates = s.sae.W_dec.detach().float().cpu().numpy(), tokens.firing_rates(part.run.latents)
    found = geometry.decoder_cosines(W, rates > 0)
    if s.reference is not None and part.other is not None:
        theirs = s.reference.W_dec.detach().float().cpu().numpy()
        found.append(
            record("pw_mcc", geometry.pw_mcc(W, theirs, (rates, tokens.firing_rates(part.other.latents))))
        )
        found += geometry.stitching(s.sae, s.reference, part.rows.x[:8192])
    two = [(c, v) for c, v in s.labelled().items() if v.nunique() == 2][:2]
    if len(two) == 2:
        X, probes = s.pooled[0], []
        for _, values in two:
            known = values.notna().to_numpy()
            first = values.dropna().unique()[0]
            probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            probes.append(probe.fit(X[known], values[known] == first).coef_[0])
        names = {"a": two[0][0], "b": two[1][0]}
        found += [
            {**r, **({"concept": names[r["concept"]]} if "concept" in r else {})}
            for r in geometry.hedging(W, *probes)
        ]
    return found


def concepts_section(s: Subject) -> list[Record]:
    """k-sparse probes of each value of each labelled column."""
    found: list[Record] = []
    train = s.train()
    for column, values in s.labelled().items():
        common = values.value_counts().index[:MOST_VALUES]
        for value in common[:1] if values.nunique() == 2 else common:
            y, known = (values == value).to_numpy(), values.notna().to_numpy()
            if min(y.sum(), (known & ~y).sum()) < MIN_LABELLED:
                continue
            X, latents = s.pooled
            records = probing.sparse_probing(
                latents[known], y[known], train[known], X=X[known], random_state=s.seed
            )
            found += [{"column": str(column), "label": str(value), "n": int(y.sum()), **r} for r in records]
    return found


def scr_tpp_section(s: Subject) -> list[Record]:
    """SCR of the first two columns with two values, TPP of each column with more."""
    found: list[Record] = []
    W = s.sae.W_dec.detach().float().cpu().numpy()
    columns = s.labelled()
    two = [(c, v) for c, v in columns.items() if v.nunique() == 2 and v.notna().all()][:2]
    if len(two) == 2:
        y, z = ((v == v.unique()[0]).to_numpy() for _, v in two)
        if min(np.bincount(2 * y + z, minlength=4)) >= MIN_LABELLED:
            X, latents = s.pooled
            records = probing.scr(X, latents, W, y, z, s.train(), random_state=s.seed)
            found += [{"target": two[0][0], "attribute": two[1][0], **r} for r in records]
    for column, values in columns.items():
        common = values.value_counts()
        kinds = common[common >= MIN_LABELLED].index[:MOST_VALUES]
        if values.nunique() > 2 and len(kinds) > 2:
            kept = values.isin(kinds).to_numpy()
            codes = pd.Categorical(values[kept], categories=kinds).codes.astype(np.int64)
            X, latents = s.pooled
            records = probing.tpp(X[kept], latents[kept], W, codes, s.train()[kept], random_state=s.seed)
            found += [{"column": str(column), **r} for r in records]
    return found


def absorption_section(s: Subject) -> list[Record]:
    """Splitting and absorption of the letters, and of the concept's values on the domain's tokens."""
    found = [{"task": "first letter", **r} for r in _letters(s)]
    if s.concept is not None:
        found += [{"task": s.concept.name, **r} for r in _concept(s, s.concept)]
    return found


def _letters(s: Subject) -> list[Record]:
    rng = np.random.default_rng(s.seed)
    words = np.array(vocabulary_words(s.model.tokenizer))
    letter = np.array([LETTERS.index(word.strip()[0].lower()) for word in words], dtype=np.int64)
    share = s.config.n_words // len(LETTERS)
    kept = np.concatenate([rng.permutation(np.flatnonzero(letter == i))[:share] for i in range(len(LETTERS))])
    kept = rng.permutation(kept)
    if len(kept) < 100:
        return []
    words, letter = words[kept], letter[kept]
    prompts = [TEMPLATE.format(word=word) for word in words]
    rows = harvest(s.model, prompts, s.hookpoint)
    starts, stops = rows.offsets.numpy().T
    ends = np.array([len(word) for word in words])[rows.text_ids.numpy()]
    at_word = np.flatnonzero((starts < ends) & (stops >= ends))
    whole = np.zeros(len(words), np.int64)
    whole[rows.text_ids.numpy()[at_word]] = at_word  # each prompt has one such token
    x, Y = rows.x[whole], letter[:, None] == np.arange(len(LETTERS))
    test = np.arange(len(words)) < len(words) // 5
    answers = (
        None if s.causal is None else _answers(s, s.causal, words[test], letter[test], words[~test], rng)
    )
    return absorption.absorption_task(
        s.sae, (x[~test], Y[~test]), (x[test], Y[test]), list(LETTERS),
        answers=answers, most_ablated=s.config.n_ablated, random_state=s.seed,
    )  # fmt: skip


def _answers(
    s: Subject,
    causal: CausalModel,
    words: np.ndarray,
    letter: np.ndarray,
    others: np.ndarray,
    rng: np.random.Generator,
) -> Callable[[np.ndarray], tuple[torch.Tensor, torch.Tensor]] | None:
    """States at words behind a few spelled examples, and the gradient of the right letter's lead in them."""
    capitals = [s.model.tokenizer(f" {c}", add_special_tokens=False)["input_ids"] for c in LETTERS.upper()]
    if any(len(ids) != 1 for ids in capitals):
        return None
    choices = [ids[0] for ids in capitals]

    def answers(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        heads = []
        for _ in rows:
            examples = rng.choice(others, s.config.n_examples, replace=False)
            heads.append("".join(f"{TEMPLATE.format(word=w)} {w.strip()[0].upper()}\n" for w in examples))
        prompts = [head + TEMPLATE.format(word=word) for head, word in zip(heads, words[rows], strict=True)]
        at = [len(head) + len(word) - 1 for head, word in zip(heads, words[rows], strict=True)]
        return answer_gradients(causal, prompts, at, s.hookpoint, letter[rows], choices, baseline=s.sae.b_dec)

    return answers


def _concept(s: Subject, concept: Concept) -> list[Record]:
    part, rng = s.parts["domain"], np.random.default_rng(s.seed)
    worded = find_words(part.texts, part.rows)
    listed = {word.lower(): i for i, value in enumerate(concept.values) for word in concept.words_of(value)}
    of_word = np.array([listed.get(word, -1) for word in worded.words])
    value = of_word[worded.word_ids]
    inside = np.flatnonzero(value >= 0)
    outside = rng.permutation(np.flatnonzero(value < 0))[: NEUTRAL * len(inside)]
    rows = rng.permutation(np.concatenate([inside, outside]))[:20_000]
    Y = value[rows][:, None] == np.arange(len(concept.values))
    test = np.arange(len(rows)) < len(rows) // 3
    if min(*Y[test].sum(0), *Y[~test].sum(0)) < MIN_LABELLED:
        return []
    x = part.rows.x[rows]
    return absorption.absorption_task(
        s.sae, (x[~test], Y[~test]), (x[test], Y[test]), concept.values, random_state=s.seed
    )


def explanations_section(s: Subject) -> list[Record]:
    """Words that name a latent on half of the texts, and how well "one of these words" finds its tokens in the
    others; a judge is asked whether excerpts fit the words."""
    part, rng = s.parts["domain"], np.random.default_rng(s.seed)
    counts = np.bincount(part.run.latents.indices, minlength=s.sae.cfg.d_sae)
    alive = np.flatnonzero(counts >= 10)
    places = np.unique(np.linspace(0, len(alive) - 1, s.config.n_explained).astype(int))[: len(alive)]
    ids = alive[np.argsort(-counts[alive], kind="stable")][places]
    worded = find_words(part.texts, part.rows)
    fired = firing(s.sae, part.rows.x, ids.tolist())
    learns = part.rows.text_ids.numpy() % 2 == 0
    found: list[Record] = []
    for i, latent in enumerate(ids):
        shares = word_shares(worded, np.where(learns, fired[:, i], 0))
        names = naming_words(shares) or list(shares)[:1]
        hit = np.isin(np.array(worded.words), names)[worded.word_ids][~learns]
        active = fired[~learns, i] > 0
        f1 = 2 * float((hit & active).sum()) / max(int(hit.sum() + active.sum()), 1)
        found.append(record("detection_f1", f1, latent=int(latent), words=names))
    if not found:
        return []
    if s.judge is not None:
        some = list(enumerate(found[: s.config.n_judged]))
        judged = [_judged(s.judge, worded, fired[:, i], ~learns, r["words"], rng) for i, r in some]
        found.append(record("judged_detection_f1", float(np.mean(judged)), n=len(judged)))
    mean = float(np.mean([r["value"] for r in found if "latent" in r]))
    return [*found, record("detection_f1", mean, latent="mean")]


def _judged(
    judge: Callable[[str], bool],
    worded: WordedRows,
    fired: np.ndarray,
    held: np.ndarray,
    words: Sequence[str],
    rng: np.random.Generator,
) -> float:
    """F1 with which a judge who knows the words tells excerpts where the latent is active from others."""
    owners, silent = worded.rows.text_ids.numpy(), np.zeros(len(fired), np.float32)
    without = np.flatnonzero(held & ~np.isin(owners, owners[fired > 0]))  # an excerpt may hold a whole text
    silent[rng.permutation(without)[:N_EXCERPTS]] = 1
    said, true = [], []
    for strength in (np.where(held, fired, 0), silent):
        for context in find_contexts(worded, strength, n_contexts=N_EXCERPTS):
            excerpt = "".join(piece.text for piece in context)
            said.append(judge(QUESTION.format(words=", ".join(words), excerpt=excerpt)))
            true.append(strength is not silent)
    hits = sum(a and b for a, b in zip(said, true, strict=True))
    return 2 * hits / max(sum(said) + sum(true), 1)


SECTIONS: dict[str, Callable[[Subject], list[Record]]] = {
    "reconstruction": reconstruction_section,
    "downstream": downstream_section,
    "tail": tail_section,
    "geometry": geometry_section,
    "concepts": concepts_section,
    "scr_tpp": scr_tpp_section,
    "absorption": absorption_section,
    "explanations": explanations_section,
}


def evaluate_sae(
    subject: Subject,
    out: str | Path,
    *,
    sections: Sequence[str] = tuple(SECTIONS),
    about: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Record]:
    """Measure the sections that ``out`` does not hold yet; write evaluation.json and evaluation.html there.

    Returns all records, each with its ``section``. Raises InputError for an unknown section, and where nothing can be
    written.
    """
    strange = sorted(set(sections) - set(SECTIONS))
    if strange:
        raise InputError(f"unknown sections {', '.join(strange)}: give some of {', '.join(SECTIONS)}")
    folder = io.writable_directory(Path(out) / "parts")
    found: list[Record] = []
    for name in sections:
        file = folder / f"{name}-{subject.key(name)}.safetensors"
        records: list[Record] | None = None
        with suppress(InputError):  # nothing there, or damaged: it is made again
            records = io.sealed_arrays(file)[1]["records"]
            say(f"{name}: kept")
        if records is None:
            records = SECTIONS[name](subject)
            io.write_arrays(file, {}, {"records": records})
            say(f"{name}: {len(records)} records")
        found += [{"section": name, **r} for r in records]
    results = {"about": dict(about or {}), "config": subject.config.model_dump(mode="json"), "records": found}
    io.write_json(Path(out) / "evaluation.json", results)
    io.write_text(Path(out) / "evaluation.html", evaluation_page(io.read_json(Path(out) / "evaluation.json")))
    return found


_LEDES = {
    "reconstruction": "How much of the activations the SAE gives back. Decile 0 holds the tokens of the rarest types.",
    "downstream": "What the model loses when the SAE's reconstruction takes the place of its activations.",
    "tail": "Whether rare token types have a latent: an F1 of at least 0.5 in finding the type's tokens.",
    "geometry": "How close the latents lie to each other, and what they share with the reference.",
    "concepts": "Probes on the k latents whose mean differs most; dense is a probe on the whole state.",
    "scr_tpp": "SCR and TPP were found unfit to select SAEs (arXiv 2605.18229): read them beside the others.",
    "absorption": "Absorbed tokens have the value and the probe sees it, but the latents that stand for it are silent.",
    "explanations": "How well the words that name a latent find its tokens in texts that did not name it.",
}
_PLOTTED = (
    ("reconstruction", "fvu", "decile"), ("tail", "coverage", "decile"), ("tail", "log2_count_ratio", "decile"),
    ("concepts", "sparse_probe_f1", "k"), ("scr_tpp", "scr", "n"), ("scr_tpp", "tpp", "n"),
    ("absorption", "absorption_rate", "concept"), ("absorption", "full_absorption", "concept"),
)  # fmt: skip
_HIDDEN = {"section", "measure", "value", "contexts", "main", "absorbing", "words", "n_positions"}


def evaluation_page(results: Mapping[str, Any]) -> str:
    """Return the page of an evaluation.json: a table and figures for each section. Raises MissingExtraError without
    jinja2 and matplotlib."""
    blocks, records = [], results["records"]
    for name in dict.fromkeys(r["section"] for r in records):
        mine = [r for r in records if r["section"] == name]
        figures = [
            Figure(svg, f"{measure} by {axis}")
            for section, measure, axis in _PLOTTED
            if section == name and (svg := _plot(mine, measure, axis))
        ]
        table = _table(f"{name}: all {len(mine)} records", mine, folded=len(mine) > 30)
        head = [
            r
            for r in mine
            if not set(r) & {"decile", "rank", "ranks", "latent", "contexts"}
            and r.get("concept", "mean") == "mean"
        ]
        tables = [_table(name, head), table] if table.folded and head else [table]
        blocks.append(Block(name, name.replace("_", " ").capitalize(), figures, tables, [_LEDES[name]]))
    context = {
        "title": "Evaluation of a sparse autoencoder", "eyebrow": "SAE evaluation",
        "lede": f"{results['about'].get('sae', 'An SAE')} at {results['about'].get('hookpoint', '?')}",
        "limits": ["One SAE and one draw of texts: differences between SAEs need several training seeds."],
        "blocks": blocks, "skipped": None,
        "provenance": {key: str(value) for key, value in results["about"].items()},
        "config": json.dumps(results["config"], indent=2),
    }  # fmt: skip
    return render("benchmark", context)


def _table(caption: str, records: Sequence[Record], *, folded: bool = False) -> Table:
    rows = []
    for r in records:
        value = r["value"]
        shown = Cell(value, wrap=True) if isinstance(value, str) else number_cell(value)
        rows.append([r["measure"], shown, Cell(_where(r), wrap=True)])
    return make_table(caption, ("measure", "value", "where"), rows, folded=folded)


def _where(record: Record) -> str:
    told = [f"{k} {v}" for k, v in record.items() if k not in _HIDDEN]
    return ", ".join(
        [*told, *(" / ".join(map(str, record[k])) for k in ("words", "contexts") if record.get(k))]
    )


def _plot(records: Sequence[Record], measure: str, axis: str) -> str:
    """One row a value of the axis, one series a combination of everything else (the first six)."""
    known = [r for r in records if r["measure"] == measure and r.get(axis) not in (None, "mean", "dense")]
    points = pd.DataFrame([r for r in known if isinstance(r["value"], int | float)])
    if points.empty:
        return ""
    told = points.reindex(columns=["part", "of", "task", "column", "label", "direction"])
    told = told.map(lambda value: "sae" if pd.isna(value) else str(value))
    points["name"] = [", ".join(row) for row in told.loc[:, told.nunique() > 1].to_numpy()]
    last = points.drop_duplicates(["name", axis], keep="last")
    table = last.pivot(index=axis, columns="name", values="value")
    shown = table.reindex(index=points[axis].unique(), columns=points["name"].unique()[:6])
    nothing = [math.nan] * len(shown)
    series = [Series(str(n) or measure, shown[n].tolist(), nothing, nothing) for n in shown]
    title = f"{measure.replace('_', ' ')} by {axis}"
    return dot_plot(
        [str(label) for label in shown.index],
        series,
        title=title,
        x_label=measure,
        limits=None,
        show_undefined=False,
    )
