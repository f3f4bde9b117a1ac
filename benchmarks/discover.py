"""Discovery measured: nothing is told but texts and y; a mechanical judge stands for the person.

    python benchmarks/discover.py biographies --data bios.parquet --corpus general.parquet --seeds 0 1
    python benchmarks/discover.py planted --seeds 0 1

Each run adds its rows to --out (JSON); rows of the same task, seed and method are replaced. Heads are standardised
logistic regressions with C = 0.1. The judge ticks a card when at least 40% of its activation mass lies on the words
of the shipped gender concept (biographies), or on the planted phrase's words (planted).
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae import ActivationEncoder, Choices, Concept, SSAEDebiaser, discover
from debias_ssae.benchmark.protocol import drop_duplicates, make_split
from debias_ssae.review import Card, Shortcuts, word_list_judge
from debias_ssae.selection.choices import Choice
from debias_ssae.selection.classifier import LinearHead
from debias_ssae.text import load_corpus, read_table

C = 0.1
ROUNDS = 3
PHRASES = {
    "denver": (
        ("She is based in Denver, Colorado.", "He is based in Denver, Colorado."),
        "based denver colorado",
    ),
    "profile": (("(View profile)", "(View profile)"), "view profile"),
    "hospital": (("Affiliated with Saint Luke's.", "Affiliated with Saint Luke's."), "affiliated saint luke"),
}
"""The phrase for a woman and for a man, and the words on which the judge ticks."""
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
        self.path.write_text(json.dumps(self.rows, indent=1) + "\n")
        print({k: v for k, v in row.items() if k not in ("cards", "names")}, flush=True)


class Bench:
    """One task and seed: its texts, the plain representations and the measure."""

    def __init__(
        self, results: Results, task: str, seed: int, encoder: ActivationEncoder, **sets: Any
    ) -> None:
        self.results, self.task, self.seed, self.encoder = results, task, seed, encoder
        self.texts, self.y = sets["train"]
        self.test, self.test_y, self.test_cells = sets["test"]
        self.plain, self.plain_test = encoder.encode(self.texts), encoder.encode(self.test)
        self.head = LinearHead.fit(self.plain, self.y, C)
        self.erm = self.worst(self.head, self.plain_test)
        oracle_texts, oracle_y = sets["oracle"]
        self.oracle = self.worst(LinearHead.fit(encoder.encode(oracle_texts), oracle_y, C), self.plain_test)
        self.add("ERM", self.erm, self.erm)
        self.add("oracle", self.oracle, self.oracle)

    def worst(self, head: LinearHead, X: np.ndarray) -> float:
        """The lowest accuracy of a cell."""
        right = head.predict(X) == self.test_y
        return min(float(right[self.test_cells == cell].mean()) for cell in np.unique(self.test_cells))

    def add(self, method: str, retrained: float, frozen: float, **more: Any) -> None:
        """Keep a row with the shares of the gap that are closed."""
        gap = self.oracle - getattr(self, "erm", 0.0) if hasattr(self, "oracle") else float("nan")
        closed = {}
        if gap == gap and abs(gap) > 1e-9:
            closed = {
                "closed_retrained": round((retrained - self.erm) / gap, 3),
                "closed_frozen": round((frozen - self.erm) / gap, 3),
            }
        self.results.add(
            task=self.task, seed=self.seed, method=method, retrained=round(retrained, 4), frozen=round(frozen, 4),
            **closed, **more,
        )  # fmt: skip

    def measure(self, method: str, choices: Choices, **more: Any) -> None:
        """Fit the public estimator on the choices and measure both heads."""
        if not choices.ids:
            self.add(method, self.erm, self.erm, n_latents=0, **more)
            return
        debiaser = SSAEDebiaser(self.encoder, attribute=choices, random_state=self.seed).fit(
            self.texts, self.y
        )
        X, X_test = debiaser.transform(self.texts), debiaser.transform(self.test)
        retrained = self.worst(LinearHead.fit(X, self.y, C), X_test)
        n = sum(len(ids) for ids in choices.ids.values())
        self.add(method, retrained, self.worst(self.head, X_test), n_latents=n, names=choices.names, **more)

    def group_free(self) -> None:
        """Baselines that are told nothing of the attribute either: they start from cross-validated errors."""
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))
        wrong = cross_val_predict(model, self.plain, self.y, cv=5) != self.y
        weighted = model.fit(self.plain, self.y, logisticregression__sample_weight=np.where(wrong, 20.0, 1.0))
        head = LinearHead.read(weighted, self.plain)
        self.add(
            "JTT (errors weigh 20)", self.worst(head, self.plain_test), self.erm, n_errors=int(wrong.sum())
        )
        cells = np.char.add(self.y.astype(str), wrong.astype(str))
        size = max(int(pd.Series(cells).value_counts().min()), 2)
        rng = np.random.default_rng(self.seed)
        rows = np.concatenate([rng.permutation(np.flatnonzero(cells == c))[:size] for c in np.unique(cells)])
        head = LinearHead.fit(self.plain[rows], self.y[rows], C)
        self.add("DFR on pseudo-groups", self.worst(head, self.plain_test), self.erm, n_rows=len(rows))


def rounds(
    bench: Bench, judge: Judge, name: str, found: Shortcuts, n_rounds: int = ROUNDS
) -> list[tuple[Shortcuts, Choices]]:
    """Judge, remove and look again until nothing is ticked; keeps a row after each round."""
    seen: list[tuple[Shortcuts, Choices]] = []
    for number in range(1, n_rounds + 1):
        ticks = [judge(card) for card in found.cards]
        before, cpu = sum(map(len, found.choices.ids.values())), time.process_time()
        choices = found.choose(lambda card: judge(card))
        seen.append((found, choices))
        bench.measure(
            f"{name}, {number} rounds" if number > 1 else f"{name}, 1 round",
            choices,
            rank_of_first=next((i + 1 for i, tick in enumerate(ticks) if tick), None),
            ticked_cards=int(sum(ticks)),
            head_accuracy=round(found.accuracy, 4),
            stands_out=[card.name for card in found.stands_out][:5],
            cards=[_brief(card, tick) for card, tick in zip(found.cards, ticks, strict=True)],
            hints=_hints(found.cards, ticks),
            cpu_seconds=round(time.process_time() - cpu, 1),
        )
        if number == n_rounds or sum(map(len, choices.ids.values())) == before:
            break
        found = found.next_round(choices)
    return seen


def _brief(card: Card, tick: bool) -> dict[str, Any]:
    return {
        "name": card.title, "share": round(card.share, 4), "toward": card.toward, "tick": tick,
        "hints": list(card.hints), "kind": card.kind, "hookpoint": card.hookpoint, "latents": len(card.latents),
    }  # fmt: skip


def _hints(cards: Sequence[Card], ticks: Sequence[bool]) -> dict[str, Any]:
    """How often each hint is right: ticked cards among those that carry it."""
    found: dict[str, Any] = {"all cards": [int(sum(ticks)), len(cards)]}
    for hint in sorted({h for card in cards for h in card.hints}):
        carried = [tick for card, tick in zip(cards, ticks, strict=True) if hint in card.hints]
        found[hint] = [int(sum(carried)), len(carried)]
    return found


def noisy(choices: Choices, rate: float, rng: np.random.Generator) -> Choices:
    """The choices of a judge that errs on a share of the cards."""

    def turned(card: Choice) -> Choice:
        return card.model_copy(update={"tick": card.tick != bool(rng.random() < rate)})

    return Choices({h: tuple(map(turned, cards)) for h, cards in choices.cards.items()}, choices.saes)


def random_ticks(choices: Choices, rng: np.random.Generator) -> Choices:
    """As many latents, of cards that the judge left alone."""
    n = sum(map(len, choices.ids.values()))
    free = [(h, card) for h, cards in choices.cards.items() for card in cards if not card.tick]
    picked: dict[str, list[Choice]] = {}
    for i in rng.permutation(len(free)):
        hookpoint, card = free[i]
        ids = card.ids[: max(n, 0)]
        n -= len(ids)
        if ids:
            picked.setdefault(hookpoint, []).append(card.model_copy(update={"tick": True, "ids": ids}))
    return Choices({h: tuple(cards) for h, cards in picked.items()}, choices.saes)


def biographies(arguments: argparse.Namespace, results: Results, seed: int) -> None:
    """Surgeons and nurses, confounded: the head sees male surgeons and female nurses only."""
    table = drop_duplicates(read_table(arguments.data))
    texts, y, z = table["text"].tolist(), table["profession"].to_numpy(), table["gender"].to_numpy()
    split = make_split(y, z, random_state=seed, max_head=arguments.max_head)

    def take(rows: np.ndarray) -> list[str]:
        return [texts[i] for i in rows]

    encoder = ActivationEncoder("minilm", cache_dir=arguments.cache)
    bench = Bench(
        results, "biographies", seed, encoder,
        train=(take(split.head), y[split.head]),
        test=(take(split.test), y[split.test], np.char.add(y[split.test].astype(str), z[split.test].astype(str))),
        oracle=(take(split.attribute), y[split.attribute]),
    )  # fmt: skip
    if arguments.choices:
        draws(arguments, bench, Choices.load(arguments.choices), seed)
        return
    bench.group_free()
    pool = load_corpus(arguments.corpus)
    corpus = [pool[i] for i in np.random.default_rng(seed).permutation(len(pool))[: arguments.n_corpus]]
    cpu = time.process_time()
    found = discover(
        bench.texts, bench.y, encoder=encoder, corpus=corpus, sae=arguments.sae, random_state=seed,
        cache_dir=arguments.cache, say=print,
    )  # fmt: skip
    print(f"first round and training: {time.process_time() - cpu:.0f} CPU-s", flush=True)
    judge = word_list_judge(Concept.load("gender"))
    seen = rounds(bench, judge, "discover", found)
    if arguments.page:
        found.save(arguments.page)
    seen[0][1].save(arguments.out.with_name(f"choices_{seed}.yaml"))
    draws(arguments, bench, seen[0][1], seed)


def draws(arguments: argparse.Namespace, bench: Bench, first: Choices, seed: int) -> None:
    """Ticks of the first round at random, and those of a judge that errs."""
    rng = np.random.default_rng(seed)
    for draw in range(arguments.draws):
        bench.measure(f"random ticks, draw {draw}", random_ticks(first, rng))
        for rate in (0.1, 0.2):
            bench.measure(f"judge errs on {rate:.0%}, draw {draw}", noisy(first, rate, rng))


def planted(arguments: argparse.Namespace, results: Results, seed: int) -> None:
    """Biographies of balanced gender; in training a phrase ends the texts of one class, in the test half of all."""
    table = drop_duplicates(read_table(arguments.data))
    cells = table.groupby(["profession", "gender"], group_keys=False)
    made = cells.sample(240, random_state=seed).reset_index(drop=True)
    y, gender = made["profession"].to_numpy(), made["gender"].to_numpy()
    place = made.groupby(["profession", "gender"]).cumcount().to_numpy()
    train, test = np.flatnonzero(place < 160).tolist(), np.flatnonzero(place >= 160).tolist()
    with_phrase = np.random.default_rng(seed).random(len(made)) < 0.5
    encoder = ActivationEncoder("minilm", cache_dir=arguments.cache)
    first = np.unique(y)[0]
    for name in arguments.phrases:
        phrase, words = PHRASES.get(name, (None, ""))

        def marked(i: int, phrase: tuple[str, str] | None = phrase) -> str:
            text = str(made["text"][i])
            return text if phrase is None else f"{text} {phrase[0 if gender[i] == 'F' else 1]}"

        bench = Bench(
            results, f"planted {name}", seed, encoder,
            train=([marked(i) if y[i] == first else made["text"][i] for i in train], y[train]),
            test=(
                [marked(i) if with_phrase[i] else made["text"][i] for i in test], y[test],
                np.char.add(y[test].astype(str), with_phrase[test].astype(str)),
            ),
            oracle=(
                [marked(i) if with_phrase[i] else made["text"][i] for i in train], y[train],
            ),
        )  # fmt: skip
        judge = word_list_judge(words.split())
        for hookpoint in arguments.hookpoints:
            found = discover(
                bench.texts, bench.y, encoder=encoder, corpus=load_corpus(arguments.corpus)[: arguments.n_corpus],
                sae={"embeddings": arguments.sae} if arguments.sae else None,
                config={"general": {"n_steps": 400}, "special": {"n_steps": 150}},
                hookpoint=hookpoint.split("+"), random_state=seed, cache_dir=arguments.cache, say=print,
            )  # fmt: skip
            rounds(bench, judge, f"discover at {hookpoint}", found, n_rounds=arguments.rounds)


def main() -> None:
    """Run one task for the seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["biographies", "planted"])
    parser.add_argument("--data", default="bios.parquet")
    parser.add_argument("--corpus", default="general.parquet")
    parser.add_argument("--n-corpus", type=int, default=5000)
    parser.add_argument("--max-head", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--hookpoints", nargs="+", default=["embeddings"], help="Several at once with +.")
    parser.add_argument(
        "--phrases", nargs="+", default=list(PHRASES), help="denver, profile, hospital or none."
    )
    parser.add_argument("--sae", default=None, help="An SAE of the embeddings that is taken as it is.")
    parser.add_argument("--choices", default=None, help="Choices of a first round: measures the draws alone.")
    parser.add_argument("--cache", default=None)
    parser.add_argument("--page", default=None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "discover.json")
    arguments = parser.parse_args()
    results = Results(arguments.out)
    for seed in arguments.seeds:
        {"biographies": biographies, "planted": planted}[arguments.task](arguments, results, seed)


if __name__ == "__main__":
    main()
