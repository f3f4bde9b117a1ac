"""What each stage of ``fit`` costs, and what it reaches. Adds a record to benchmarks/results/fit_profile.json.

    python benchmarks/fit_profile.py --data DIR --name after --seeds 0 1 2
    PYTHONPATH=other_checkout python benchmarks/fit_profile.py --data DIR --name before --seeds 0 1 2

``SSAEDebiaser("minilm", corpus=5,000 texts).fit(1,500 biographies, y, sensitive_features=)`` on one thread, without a
cache. Stages are CPU-seconds, each less what it calls of the others. Of the biographies that are neither those nor test
texts, at most 250 of every cell (class x gender) are set aside: heads learn from the training texts of the cells in
which class and gender go together, on plain representations (frozen) or on debiased ones (retrained), and the worst
cell of those set aside counts. ``recurrence``: share of the removed latents that have one of cosine >= 0.8 in another
seed's SAE.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DEBIAS_SSAE_CACHE"] = "off"

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results" / "fit_profile.json"
N_TEXTS, N_CORPUS, N_CELL = 1500, 5000, 250


class Stages:
    """CPU-seconds of the functions that are watched; time in one of them inside another counts for the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = time.process_time()

    def stop(self) -> None:
        """Give the time since the last change to what runs now."""
        now = time.process_time()
        name = self._running[-1] if self._running else "other"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def watch(self, owner: Any, function: str, stage: str) -> None:
        """Have ``owner.function`` count as ``stage``."""
        inner: Callable[..., Any] = getattr(owner, function)

        def watched(*arguments: Any, **options: Any) -> Any:
            self.stop()
            self._running.append(stage)
            try:
                return inner(*arguments, **options)
            finally:
                self.stop()
                self._running.pop()

        setattr(owner, function, watched)


def watch_all(stages: Stages) -> None:
    """Watch what ``fit`` consists of."""
    from debias_ssae.debiaser import pipeline, training
    from debias_ssae.model import encoder
    from debias_ssae.retrieval import embedders
    from debias_ssae.selection.attribute import AnnotatedTexts

    for owner in (encoder, __import__("debias_ssae.model").model):
        stages.watch(owner, "load_model", "loading the model")
    embedders.load_embedder.cache_clear()
    stages.watch(training, "retrieve", "retrieval")
    stages.watch(training, "harvest", "activations")
    stages.watch(training, "train_sae", "training the SAE")
    stages.watch(AnnotatedTexts, "select", "selecting latents")
    stages.watch(encoder.ActivationEncoder, "encode", "representations for the output eraser")
    stages.watch(pipeline, "fit_after_edit", "choosing and fitting the output eraser")


def run(arguments: argparse.Namespace) -> None:
    """Fit each seed, and keep what was measured."""
    data = Path(arguments.data)
    bios = pd.read_parquet(data / "bias_in_bios_surgeon_nurse" / "data.parquet").query("split != 'test'")
    corpus = pd.read_parquet(data / "general_corpus" / "data.parquet")["text"]
    started = time.process_time()
    import torch

    torch.set_num_threads(1)
    from debias_ssae import SSAEDebiaser

    record: dict[str, Any] = {"imports": time.process_time() - started, "fits": []}
    stages = Stages()
    watch_all(stages)
    made = []
    for seed in arguments.seeds:
        some = bios.sample(frac=1, random_state=seed)
        train, apart = some.iloc[:N_TEXTS], some.iloc[N_TEXTS:].groupby(["profession", "gender"]).head(N_CELL)
        texts, y, z = (train[name].tolist() for name in ("text", "profession", "gender"))
        some_corpus = corpus.sample(N_CORPUS, random_state=seed).tolist()
        debiaser = SSAEDebiaser(
            "minilm", corpus=some_corpus, cache_dir=None, random_state=seed, config=json.loads(arguments.set)
        )
        stages.seconds.clear()
        started = time.process_time()
        debiaser.fit(texts, y, sensitive_features=z)
        seconds = time.process_time() - started
        stages.stop()
        found = {
            "seed": seed,
            "seconds": seconds,
            "stages": {k: round(v, 2) for k, v in stages.seconds.items()},
        }
        one = next(iter(debiaser.interventions_.values()))
        found["n_removed"] = len(one.selection.ids)
        found["picked"] = (debiaser.report_.get("choice") or {}).get(
            "picked", debiaser.report_["output_eraser"]
        )
        found |= {name: one.record[name] for name in ("general", "special")}
        found |= worst_groups(debiaser, train, apart)
        record["fits"].append(found)
        made.append((one.sae.W_dec.detach(), one.selection.ids))
        print(arguments.name, seed, json.dumps(found), flush=True)
        record["recurrence"] = recurrences(made)
        keep(arguments.name, record)


def keep(name: str, record: dict[str, Any]) -> None:
    """Add a record to the results; seeds of it that were measured before stay."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    new = {one["seed"] for one in record["fits"]}
    earlier = [one for one in kept.get(name, {}).get("fits", []) if one["seed"] not in new]
    fits = sorted([*earlier, *record["fits"]], key=lambda one: one["seed"])
    RESULTS.write_text(json.dumps(kept | {name: record | {"fits": fits}}, indent=1) + "\n")


def worst_groups(debiaser: Any, train: pd.DataFrame, apart: pd.DataFrame) -> dict[str, float]:
    """Return the worst cell's accuracy of a retrained and of a frozen head."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    value = train.groupby("profession")["gender"].agg(lambda values: values.mode()[0])
    confounded = train[train["gender"] == train["profession"].map(value)]
    plain, debiased = (f(confounded.text.tolist()) for f in (debiaser.encoder_.encode, debiaser.transform))
    x = debiaser.transform(apart.text.tolist())
    found = {}
    for name, rows in (("worst_group_retrained", debiased), ("worst_group_frozen", plain)):
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        right = head.fit(rows, confounded.profession).predict(x) == apart.profession
        found[name] = float(right.groupby([apart.profession, apart.gender]).mean().min())
    return found


def recurrences(made: list[tuple[Any, np.ndarray]]) -> list[float]:
    """Return the share of each seed's removed latents that every other seed's SAE has as well."""
    unit = [(W / W.norm(dim=1, keepdim=True).clamp_min(1e-12), ids) for W, ids in made]
    return [
        float(((W[ids] @ other.T).amax(1) >= 0.8).float().mean())
        for i, (W, ids) in enumerate(unit)
        for j, (other, _) in enumerate(unit)
        if i != j and len(ids)
    ]


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--name", required=True, help="of the record")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", default="{}", help="settings of DebiasConfig, as JSON")
    arguments = parser.parse_args()
    run(arguments)


if __name__ == "__main__":
    main()
