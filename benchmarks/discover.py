"""Discovery measured: nothing is told but texts and y; a mechanical judge stands for the person.

    python benchmarks/discover.py biographies --data bios.parquet --corpus general.parquet --seeds 0 1 2 3 4
    python benchmarks/discover.py wiki --data wiki.parquet ...; python benchmarks/discover.py reviews ...
    python benchmarks/discover.py planted --texts biographies --phrases denver none ...
    python benchmarks/discover.py table

Splits are those of the benchmark's protocol; each seed draws its own split, start of training and order of the
training rows. Rows go to --out (JSON); a seed that is there is not run again, and --cache keeps what was encoded,
trained and chosen. Heads are standardised logistic regressions with C = 0.1. The judge ticks a card when at
least 40% of its activation mass lies on a list: the shipped gender words, the words of two kinds of product, or those
of the planted phrase. ``table`` prints the tables of docs/discover.md with paired intervals for new texts and seeds.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae import ActivationEncoder, Choices, Concept, SSAEDebiaser, discover
from debias_ssae.baselines import ConceptBottleneck, hospital_words
from debias_ssae.benchmark.protocol import drop_duplicates, make_split
from debias_ssae.core.config import BenchmarkConfig, SAEConfig
from debias_ssae.core.stats.seeds import JointBootstrap, Moves, gap_closed
from debias_ssae.model import harvest
from debias_ssae.review import Card, Shortcuts, word_list_judge
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.choices import Choice
from debias_ssae.selection.classifier import LinearHead
from debias_ssae.text import load_corpus, read_table, synthetic_biographies

C = 0.1
CONFIG: dict[str, Any] = {
    "selection": {"max_texts": 500},
    "discovery": {"n_texts": 80, "n_tried": 40, "n_what_if": 80},
}
"""What is smaller than by default, for all methods alike, so that a seed takes minutes."""
PHRASES = {
    "denver": (
        ("She is based in Denver, Colorado.", "He is based in Denver, Colorado."),
        "based denver colorado",
    ),
    "profile": (("(View profile)",) * 2, "view profile"),
    "hospital": (("Affiliated with Saint Luke's.",) * 2, "affiliated saint luke"),
}
"""The phrase for a woman and for a man, and the words on which the judge ticks."""
PRODUCTS = """movie movies film films dvd dvds scene scenes actor actors actress acting plot story character characters
 director season episode episodes series watch watched watching video cinema hollywood cast soundtrack trailer
 product products device battery batteries cable cables camera cameras speaker speakers headphones headset keyboard
 mouse printer router laptop computer usb software hardware memory card drive player ipod phone charger adapter
 monitor radio antenna remote sony apple price bought purchase purchased unit units electronics sound""".split()  # noqa: SIM905
"""What reviews of films and of electronics are about, from general knowledge."""
TASKS: dict[str, dict[str, Any]] = {
    "biographies": {"columns": ("text", "profession", "gender"), "max_head": 400},
    "wiki": {
        "columns": ("text_wo_first_sentence", "occupation", "gender"), "keep": ("athlete", "politician"),
        "n_test": 60, "n_attribute": 60, "max_head": 400,
    },
    "reviews": {"columns": ("text", "label", "domain"), "max_head": 400, "max_length": 128},
}  # fmt: skip
N_PLANTED = (160, 80)
"""Texts of a class and gender in training and test of the planted task."""
Judge = Callable[[Card], bool]


class Results:
    """The kept rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def add(self, **row: Any) -> None:
        """Keep a row in place of an older one of the same task, seed and method."""
        key = (row["task"], row["seed"], row["method"])
        self.rows = [r for r in self.rows if (r["task"], r["seed"], r["method"]) != key] + [row]
        self.path.write_text("[\n" + ",\n".join(json.dumps(r) for r in self.rows) + "\n]\n")
        shown = ("task", "seed", "method", "retrained", "frozen", "n_latents", "rank_of_first", "cpu_seconds")
        print({k: row[k] for k in shown if k in row}, flush=True)

    def done(self, task: str, seed: int, mark: str = "finished") -> bool:
        """Whether the seed was run to its end."""
        return any((r["task"], r["seed"], r["method"]) == (task, seed, mark) for r in self.rows)


class Bench:
    """One task and seed: its texts, the plain representations and the measure."""

    def __init__(
        self,
        results: Results,
        task: str,
        seed: int,
        encoder: ActivationEncoder,
        *,
        train: tuple[list[str], np.ndarray],
        test: tuple[list[str], np.ndarray, np.ndarray, np.ndarray],
        annotated: tuple[list[str], np.ndarray, np.ndarray],
    ) -> None:
        self.results, self.task, self.seed, self.encoder = results, task, seed, encoder
        self.began = time.process_time()
        self.texts, self.y = train
        self.test, self.test_y, self.cells, ids = test
        self.annotated, self.annotated_y, self.annotated_cells = annotated
        self.plain, self.plain_test = encoder.encode(self.texts), encoder.encode(self.test)
        self.head = LinearHead.fit(self.plain, self.y, C)
        results.add(task=task, seed=seed, method="test set", ids=ids.tolist(), cells=self.cells.tolist())
        self.add("ERM", self.plain_test, self.head, self.head)
        self.add(
            "oracle", self.plain_test, LinearHead.fit(encoder.encode(self.annotated), self.annotated_y, C)
        )

    def add(
        self, method: str, X_test: np.ndarray, retrained: Any, frozen: LinearHead | None = None, **more: Any
    ) -> None:
        """Keep a row: which test texts either head gets right in representations ``X_test``."""
        found: dict[str, Any] = {}
        for name, head in (("retrained", retrained), ("frozen", frozen)):
            if head is not None:
                right = head.predict(X_test) == self.test_y
                found[name] = round(worst(right, self.cells), 4)
                found[f"{name}_accuracy"] = round(float(right.mean()), 4)
                found[f"{name}_right"] = np.packbits(right).tobytes().hex()
        self.results.add(task=self.task, seed=self.seed, method=method, **found, **more)

    def measure(self, method: str, debiaser: SSAEDebiaser, **more: Any) -> None:
        """Measure a fitted public estimator with both heads; after a round the frozen one without its shift as well."""
        X, X_test = debiaser.transform(self.texts), debiaser.transform(self.test)
        n = sum(len(one.selection.ids) for one in debiaser.interventions_.values())
        if debiaser.shift_ is not None and method.endswith(("round", "rounds")):
            Z = debiaser.transform(self.annotated)
            more["annotated_frozen"], more["annotated_frozen_unshifted"] = (
                round(worst(self.head.predict(x) == self.annotated_y, self.annotated_cells), 4)
                for x in (Z, Z - debiaser.shift_)
            )
        self.add(method, X_test, LinearHead.fit(X, self.y, C), self.head, n_latents=n, **more)

    def remove(self, method: str, choices: Choices, **more: Any) -> None:
        """Measure what removing the ticked latents does; nothing ticked leaves the plain model."""
        if choices.ids:
            debiaser = SSAEDebiaser(
                self.encoder, attribute=choices, config=CONFIG, random_state=self.seed,
                cache_dir=self.encoder.cache_dir,
            )  # fmt: skip
            self.measure(method, debiaser.fit(self.texts, self.y), names=choices.names, **more)
        else:
            self.add(method, self.plain_test, self.head, self.head, n_latents=0, names=[], **more)

    def finish(self, mark: str = "finished") -> None:
        """Mark the seed as done."""
        spent = round(time.process_time() - self.began)
        self.results.add(task=self.task, seed=self.seed, method=mark, cpu_seconds=spent)


def worst(right: np.ndarray, cells: np.ndarray) -> float:
    """The lowest accuracy of a cell."""
    return min(float(right[cells == cell].mean()) for cell in np.unique(cells))


def group_free(bench: Bench) -> None:
    """Baselines on pooled representations that are told nothing of the attribute either."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))
    wrong = cross_val_predict(model, bench.plain, bench.y, cv=5) != bench.y
    weighted = model.fit(bench.plain, bench.y, logisticregression__sample_weight=np.where(wrong, 20.0, 1.0))
    bench.add("JTT (errors weigh 20)", bench.plain_test, weighted, n_errors=int(wrong.sum()))
    cells = np.char.add(bench.y.astype(str), wrong.astype(str))
    codes, sizes = np.unique(cells, return_counts=True)
    rng = np.random.default_rng(bench.seed)
    rows = np.concatenate([rng.permutation(np.flatnonzero(cells == c))[: max(sizes.min(), 2)] for c in codes])
    bench.add(
        "DFR on pseudo-groups",
        bench.plain_test,
        LinearHead.fit(bench.plain[rows], bench.y[rows], C),
        n_rows=len(rows),
    )
    if words := hospital_words(np.unique(bench.y).tolist()):
        bottleneck = ConceptBottleneck(bench.encoder, words).fit(bench.plain)
        head = LinearHead.fit(bottleneck.transform(bench.plain), bench.y, C)
        bench.add("SHIFT's concept bottleneck", bottleneck.transform(bench.plain_test), head)


def word_methods(bench: Bench, listed: Sequence[str]) -> None:
    """The 40 words that a bag of words rests on most: ticked by the same judge, or without one by treatment effect.

    The effect is the difference in y between a text with the word and the nearest text without it (after Wang and
    Culotta 2020, arXiv 2010.02458); the half with the smallest effect beside the plain difference counts as spurious.
    """
    vectorizer = CountVectorizer(binary=True, min_df=5, token_pattern=r"(?u)\b\w+\b")
    counts = vectorizer.fit_transform(bench.texts).toarray().astype(float)
    y = np.unique(bench.y, return_inverse=True)[1]
    weights = LogisticRegression(C=C, max_iter=500).fit(counts, y).coef_[0]
    top = np.argsort(-np.abs(weights) * counts.std(axis=0))[:40]
    words = np.array(vectorizer.get_feature_names_out())[top]
    unit = bench.plain / np.linalg.norm(bench.plain, axis=1, keepdims=True)
    ratio = np.zeros(len(top))
    for i, column in enumerate(top):
        has = counts[:, column] > 0
        inside, outside = np.flatnonzero(has), np.flatnonzero(~has)
        nearest = outside[(unit[inside] @ unit[outside].T).argmax(axis=1)]
        plain = y[inside].mean() - y[outside].mean()
        ratio[i] = abs((y[inside] - y[nearest]).mean()) / max(abs(plain), 1e-9)
    judged = sorted(set(words) & set(listed))
    spurious = sorted(words[np.argsort(ratio)[: len(top) // 2]])
    for name, gone in (("words, judged", judged), ("words by treatment effect", spurious)):
        pattern = re.compile(rf"\b({'|'.join(map(re.escape, gone))})\b", re.IGNORECASE) if gone else None
        texts, test = (
            [pattern.sub("", t) if pattern else t for t in some] for some in (bench.texts, bench.test)
        )
        X, X_test = bench.encoder.encode(texts), bench.encoder.encode(test)
        bench.add(name, X_test, LinearHead.fit(X, bench.y, C), bench.head, words=[str(w) for w in gone])


def directions(bench: Bench, kind: str) -> SparseAutoencoder:
    """Both sides of each neuron, or of each principal component, of the token embeddings as latents."""
    rows = harvest(bench.encoder.language_model, bench.texts, "embeddings").x
    mean, d = rows.mean(0), rows.shape[1]
    axes = torch.eye(d) if kind == "neurons" else torch.linalg.eigh((rows - mean).T @ (rows - mean))[1].T
    sae = SparseAutoencoder(SAEConfig(d_in=d, d_sae=2 * d, architecture="relu"), random_state=0)
    with torch.no_grad():
        for weights in (sae.W_enc, sae.W_dec):
            weights.copy_(torch.cat([axes, -axes]))
        sae.b_enc.zero_()
        sae.b_dec.copy_(mean)
    return sae


def rounds(bench: Bench, judge: Judge, name: str, found: Shortcuts, n_rounds: int) -> Choices:
    """Judge, remove and look again until nothing is ticked; keeps a row after each round."""
    for number in range(1, n_rounds + 1):
        ticks = [judge(card) for card in found.cards]
        before, cpu = sum(map(len, found.choices.ids.values())), time.process_time()
        choices = found.choose(judge)
        ended = sum(map(len, choices.ids.values())) == before
        bench.remove(
            f"{name}, {number} round{'s' * (number > 1)}",
            choices,
            rank_of_first=next((i + 1 for i, tick in enumerate(ticks) if tick), None),
            head_accuracy=round(found.accuracy, 4),
            stands_out=[card.name for card in found.stands_out],
            cards=[
                _brief(card, tick)
                for i, (card, tick) in enumerate(zip(found.cards, ticks, strict=True))
                if tick or i < 10
            ],
            hints=_hints(found.cards, ticks),
        )
        if number == n_rounds or ended:
            break
        found = found.next_round(choices)
        print(f"round {number + 1}: {time.process_time() - cpu:.0f} CPU-s", flush=True)
    return choices


def _brief(card: Card, tick: bool) -> list[Any]:
    return [card.name, card.title, round(card.share, 4), card.toward, tick, list(card.hints), card.kind]


def _hints(cards: Sequence[Card], ticks: Sequence[bool]) -> dict[str, list[int]]:
    """How often each hint is right: ticked cards among those that carry it."""
    found = {"all cards": [int(sum(ticks)), len(cards)]}
    for hint in sorted({h for card in cards for h in card.hints}):
        carried = [tick for card, tick in zip(cards, ticks, strict=True) if hint in card.hints]
        found[hint] = [int(sum(carried)), len(carried)]
    return found


def noisy(choices: Choices, rate: float, rng: np.random.Generator) -> Choices:
    """The choices of a judge that errs on a share of all cards it saw."""

    def turned(card: Choice) -> Choice:
        return card.model_copy(update={"tick": card.tick != bool(rng.random() < rate)})

    return Choices({h: tuple(map(turned, cards)) for h, cards in choices.cards.items()}, choices.saes)


def random_ticks(choices: Choices, n: int, rng: np.random.Generator) -> Choices:
    """``n`` latents, of cards that the judge left alone."""
    free = [
        (h, card, i)
        for h, cards in choices.cards.items()
        for card in cards
        if not card.tick
        for i in card.ids
    ]
    picked: dict[str, list[Choice]] = {}
    for place in rng.permutation(len(free))[:n]:
        hookpoint, card, latent = free[place]
        picked.setdefault(hookpoint, []).append(card.model_copy(update={"tick": True, "ids": (latent,)}))
    return Choices({h: tuple(cards) for h, cards in picked.items()}, choices.saes)


def named(arguments: argparse.Namespace, results: Results, seed: int) -> None:
    """A confounded task: each class is trained on with its majority value of the attribute alone."""
    task, about = arguments.task, TASKS[arguments.task]
    table = read_table(arguments.data)
    text, target, attribute = about["columns"]
    if "keep" in about:
        table = table[table[target].isin(about["keep"])]
    table = drop_duplicates(
        table.drop(columns="text").rename(columns={text: "text"}) if text != "text" else table
    )
    texts, y, z = table["text"].tolist(), table[target].to_numpy(str), table[attribute].to_numpy(str)
    sizes = {k: about[k] for k in ("n_test", "n_attribute", "max_head") if k in about}
    split = make_split(y, z, BenchmarkConfig(**sizes), seed)
    encoder = ActivationEncoder("minilm", cache_dir=arguments.cache, max_length=about.get("max_length"))
    cells = np.char.add(y, z)

    def take(rows: np.ndarray) -> list[str]:
        return [texts[i] for i in rows]

    bench = Bench(
        results, task, seed, encoder,
        train=(take(split.head), y[split.head]),
        test=(take(split.test), y[split.test], cells[split.test], split.test),
        annotated=(take(split.attribute), y[split.attribute], cells[split.attribute]),
    )  # fmt: skip
    concept = None if task == "reviews" else Concept.load("gender")
    listed = PRODUCTS if concept is None else [word.lower() for word in concept.words]
    judge = word_list_judge(listed)
    common: dict[str, Any] = {
        "encoder": encoder,
        "random_state": seed,
        "cache_dir": arguments.cache,
        "say": print,
    }
    pool, kept = corpus(arguments), Path(arguments.cache) / f"{task}-{seed}" / "choices.yaml"
    if not (kept.exists() and results.done(task, seed)):
        group_free(bench)
        cpu = time.process_time()
        found = discover(bench.texts, bench.y, corpus=pool, config=CONFIG, **common)
        print(f"training and first round: {time.process_time() - cpu:.0f} CPU-s", flush=True)
        if arguments.page:
            found.save(arguments.page)
        kept.parent.mkdir(exist_ok=True)
        rounds(bench, judge, "discover", found, arguments.rounds).save(kept)
        bench.finish()
    if not arguments.more:
        return
    word_methods(bench, listed)
    draws(bench, Choices.load(kept))
    if concept is not None:
        options = {"config": CONFIG, "random_state": seed, "cache_dir": arguments.cache}
        told = SSAEDebiaser(encoder, attribute=concept, corpus=pool, **options)
        bench.measure("fit with the concept told", told.fit(bench.texts, bench.y))
    # they fire in every text, so each what-if runs them all
    fewer = {**CONFIG, "discovery": {"n_texts": 60, "n_tried": 40, "n_what_if": 24}}
    for kind in ("neurons", "principal components"):
        found = discover(bench.texts, bench.y, sae=directions(bench, kind), config=fewer, **common)
        rounds(bench, judge, kind, found, 1)
    bench.finish("finished with more")


def draws(bench: Bench, choices: Choices) -> None:
    """Ticks at random, one wrong tick more, and a judge that errs on all the cards it saw."""
    rng = np.random.default_rng(bench.seed)
    n = sum(map(len, choices.ids.values()))
    bench.remove("random ticks", random_ticks(choices, n, rng))
    bench.remove("discover, one wrong tick more", choices | random_ticks(choices, 1, rng))
    for rate in (0.1, 0.2):
        bench.remove(f"discover, judge errs on {rate:.0%}", noisy(choices, rate, rng))


def corpus(arguments: argparse.Namespace) -> list[str]:
    """The same texts for every seed and task, so that they are embedded once."""
    pool = load_corpus(arguments.corpus)
    return [pool[i] for i in np.random.default_rng(0).permutation(len(pool))[: arguments.n_corpus]]


def planted(arguments: argparse.Namespace, results: Results, seed: int) -> None:
    """Biographies of balanced gender; in training a phrase ends the texts of one class, in the test each text stands
    with and without it; "none" plants nothing, and what the hints flag is removed.
    """
    n_train, n_test = N_PLANTED
    if arguments.texts == "biographies":
        table = drop_duplicates(read_table(arguments.data))
    else:
        table = synthetic_biographies(3_000, correlation=0.0, n_professions=2, random_state=seed)
    cells = table.groupby(["profession", "gender"], group_keys=False)
    made = cells.sample(n_train + n_test, random_state=seed).reset_index(drop=True)
    texts, y = made["text"].tolist(), made["profession"].to_numpy(str)
    female = made["gender"].isin(["F", "female"]).to_numpy()
    place = made.groupby(["profession", "gender"]).cumcount().to_numpy()
    train, test = np.flatnonzero(place < n_train), np.flatnonzero(place >= n_train)
    half = np.random.default_rng(seed).random(len(made)) < 0.5
    encoder = ActivationEncoder("minilm", cache_dir=arguments.cache)
    for name in arguments.phrases:
        task = f"planted {name} in {arguments.texts}"
        if results.done(task, seed):
            continue
        phrase, words = PHRASES.get(name, (None, ""))

        def marked(i: int, phrase: tuple[str, str] | None = phrase) -> str:
            return texts[i] if phrase is None else f"{texts[i]} {phrase[0 if female[i] else 1]}"

        both = [texts[i] for i in test] + ([marked(i) for i in test] if phrase else [])
        times = len(both) // len(test)
        first = np.unique(y)[0]
        cells_of = np.char.add(np.tile(y[test], times), np.repeat(["", "+"][:times], len(test)))
        bench = Bench(
            results, task, seed, encoder,
            train=([marked(i) if y[i] == first else texts[i] for i in train], y[train]),
            test=(both, np.tile(y[test], times), cells_of, np.arange(len(both)) * 10 + seed),
            annotated=(
                [marked(i) if half[i] else texts[i] for i in train], y[train],
                np.char.add(y[train], np.where(half[train], "+", "")),
            ),
        )  # fmt: skip
        for hookpoint in arguments.hookpoints:
            found = discover(
                bench.texts, bench.y, encoder=encoder, corpus=corpus(arguments), config=CONFIG,
                hookpoint=hookpoint.split("+"), random_state=seed, cache_dir=arguments.cache, say=print,
            )  # fmt: skip
            judge = word_list_judge(words.split()) if phrase else lambda card: bool(card.hints)
            rounds(bench, judge, f"discover at {hookpoint}", found, arguments.rounds)
            if not phrase:
                out = found.choose([card.number for card in found.stands_out])
                bench.remove(f"what stands out at {hookpoint}", out)
        bench.finish()


def read_right(row: dict[str, Any], name: str, n: int) -> np.ndarray:
    """Which test texts the head got right."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(row[f"{name}_right"]), np.uint8))[:n].astype(float)


def table(results: Results) -> None:
    """Print each task's methods: mean worst group, share of the gap closed, paired difference to discovery."""
    for task in sorted({r["task"] for r in results.rows}):
        rows = {(r["method"], r["seed"]): r for r in results.rows if r["task"] == task}
        if seeds := sorted({seed for method, seed in rows if method == "finished"}):
            print(f"\n### {task}, {len(seeds)} seeds\n")
            _print_methods(rows, seeds)
            _print_facts(rows, seeds)


Rows = dict[tuple[str, int], dict[str, Any]]
ALL = "discover, all rounds"


def _print_methods(rows: Rows, seeds: Sequence[int]) -> None:
    for seed in seeds:
        names = [m for m, s in rows if s == seed and m.startswith("discover") and "round" in m]
        rows[ALL, seed] = rows[max(names, key=lambda name: int(re.findall(r"(\d) round", name)[0])), seed]
    ids = [rows["test set", s]["ids"] for s in seeds]
    bootstrap = JointBootstrap(ids, [np.array(rows["test set", s]["cells"]) for s in seeds])

    def moves(method: str, head: str) -> Moves | None:
        found = [rows.get((method, s), {}) for s in seeds]
        if not all(f"{head}_right" in row for row in found):
            return None
        return bootstrap.moves([read_right(r, head, len(i)) for r, i in zip(found, ids, strict=True)])

    base, best = moves("ERM", "retrained"), moves("oracle", "retrained")
    print("| method | latents | " + " | ".join(f"{h} | closed | discovery leads by" for h in HEADS) + " |")
    print("|---|---|" + "---|" * 6)
    for method in dict.fromkeys(m for m, _ in rows if m != "test set" and not m.startswith("finished")):
        n = [rows[method, s]["n_latents"] for s in seeds if "n_latents" in rows.get((method, s), {})]
        shown = [method, f"{min(n)} to {max(n)}" if n else ""]
        for head in HEADS:
            here, ours = moves(method, head), moves(ALL, head)
            if here is None or ours is None or base is None or best is None:
                shown += ["", "", ""]
                continue
            closed, less = gap_closed(here, base, best), ours.minus(here).interval()
            shown += [f"{here.point.mean():.3f}", "" if closed is None else f"{closed.interval().value:.2f}"]
            shown += [f"{less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}]"]
        print(f"| {' | '.join(shown)} |")


HEADS = ("retrained", "frozen")


def _print_facts(rows: Rows, seeds: Sequence[int]) -> None:
    """Ranks, what stood out, how often hints were right, and the frozen head with and without the shift."""
    hints: dict[str, np.ndarray] = {}
    shift: list[tuple[float, float]] = []
    for (method, seed), row in rows.items():
        if "annotated_frozen" in row and method.startswith("discover") and method != ALL:
            shift.append((row["annotated_frozen"], row["annotated_frozen_unshifted"]))
        if method.startswith("discover") and "1 round" in method:
            print(f"seed {seed}: first card {row['rank_of_first']}, accuracy {row['retrained_accuracy']}")
            print(f"  stands out: {row['stands_out']}")
            for hint, right in row["hints"].items():
                hints[hint] = hints.get(hint, np.zeros(2, int)) + right
    print({hint: right.tolist() for hint, right in hints.items()}, f"over {len(seeds)} seeds")
    if shift:
        print(
            "annotated set, frozen head with and without the shift:",
            np.mean(shift, axis=0).round(3),
            len(shift),
        )


def main() -> None:
    """Run one task for the seeds, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=[*TASKS, "planted", "table"])
    parser.add_argument("--data", default="bios.parquet")
    parser.add_argument("--corpus", default="general.parquet")
    parser.add_argument("--n-corpus", type=int, default=5000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--texts", choices=["biographies", "synthetic"], default="biographies")
    parser.add_argument("--hookpoints", nargs="+", default=["embeddings"], help="Several at once with +.")
    parser.add_argument("--phrases", nargs="+", default=[*PHRASES, "none"])
    parser.add_argument("--cache", default="cache")
    parser.add_argument("--rounds", type=int, default=3, help="At most.")
    parser.add_argument("--page", default=None, help="Writes the page of the first round there.")
    parser.add_argument("--more", action="store_true", help="Also words, neurons, noise, the concept told.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "discover.json")
    arguments = parser.parse_args()
    results = Results(arguments.out)
    if arguments.task == "table":
        table(results)
        return
    for seed in arguments.seeds:
        if arguments.task == "planted":
            planted(arguments, results, seed)
        elif not results.done(arguments.task, seed, "finished with more" if arguments.more else "finished"):
            named(arguments, results, seed)


if __name__ == "__main__":
    main()
