"""How fast texts become activations, beside what else one could use. Writes benchmarks/results/harvest.json.

Model: GPT-NeoX of Pythia-70M's shape with random weights, hook after block 3 of 6; texts: synthetic biographies of
30 to 174 words (one token each). Every row is CPU-seconds on one thread, rounds interleaved, median; tokens are real
ones (padding and separators do no count, for SAELens: all tokens its model produced). The roofline is a plain
matrix product of the model's shapes, measured in the same rounds, over the multiplications of four blocks.
Peers (sae-lens, dictionary-learning with nnsight) are skipped, saying so, where they are not installed.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from debias_ssae.core.device import has_fast_bf16
from debias_ssae.model import LanguageModel, harvest, wrap_model

BLOCK = 3
LENGTHS = (30, 174)
Timed = tuple[float, float, int]


def make_texts(n: int, seed: int = 0) -> list[str]:
    """Texts of 30 to 174 words, mean 67."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(LENGTHS[0] + rng.exponential(39, n).astype(int), *LENGTHS)
    return [" ".join(f"w{i}" for i in rng.integers(0, 20_000, length)) for length in lengths]


def make_model() -> tuple[transformers.GPTNeoXForCausalLM, Any]:
    """Pythia-70M's shape, random weights, and a word-level tokenizer of its vocabulary's size."""
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        vocab_size=50_304,
        max_position_embeddings=2048,
    )
    vocabulary = {"<|endoftext|>": 0} | {f"w{i}": i + 1 for i in range(50_000)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict.fromkeys(("unk_token", "pad_token", "bos_token", "eos_token"), "<|endoftext|>")
    return transformers.GPTNeoXForCausalLM(config).eval(), transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **special
    )


def timed(run: Callable[[], int]) -> Timed:
    """CPU-seconds, wall seconds, tokens."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = run()
    return time.process_time() - cpu, time.perf_counter() - wall, tokens


def roofline(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Multiply-add operations a CPU-second of the model's matrix products at 2,048 rows."""
    shapes = [(512, 1536), (512, 512), (512, 2048), (2048, 512)]
    pairs = [(torch.randn(2048, k).to(dtype), torch.randn(n, k).to(dtype)) for k, n in shapes]
    done, start = 0.0, time.process_time()
    while time.process_time() - start < seconds:
        for x, w in pairs:
            torch.nn.functional.linear(x, w)
            done += 2 * x.shape[0] * w.numel()
    return done / (time.process_time() - start)


def naive(model: Any, tokenizer: Any, texts: list[str]) -> int:
    """What users write: the causal model, all hidden states, 32 texts a batch."""
    total = 0
    for start in range(0, len(texts), 32):
        batch = tokenizer(texts[start : start + 32], return_tensors="pt", padding=True)
        with torch.no_grad():
            states = model(**batch, output_hidden_states=True).hidden_states[BLOCK + 1]
        total += len(states[batch["attention_mask"].bool()])
    return total


def base_and_hook(model: Any, tokenizer: Any, texts: list[str]) -> int:
    """The base model with a hook, full depth, 32 texts a batch."""
    kept: list[Tensor] = []
    handle = model.gpt_neox.layers[BLOCK].register_forward_hook(
        lambda m, args, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    total = 0
    for start in range(0, len(texts), 32):
        batch = tokenizer(texts[start : start + 32], return_tensors="pt", padding=True)
        with torch.no_grad():
            model.gpt_neox(**batch)
        total += len(kept.pop()[batch["attention_mask"].bool()])
    handle.remove()
    return total


def ours(model: LanguageModel, texts: list[str], budget: int) -> int:
    """This package."""
    return len(harvest(model.with_limits(token_budget=budget), texts, f"blocks.{BLOCK}").x)


def dictionary_learning_buffer(model: Any, tokenizer: Any) -> Callable[[list[str]], int]:
    """Its ActivationBuffer over nnsight, filled once."""
    from dictionary_learning.buffer import ActivationBuffer
    from nnsight import LanguageModel as Traced

    traced = Traced(model, tokenizer=tokenizer)

    def run(texts: list[str]) -> int:
        words = [len(t.split()) for t in texts]
        buffer = ActivationBuffer(
            iter(texts),
            traced,
            traced.gpt_neox.layers[BLOCK],
            d_submodule=512,
            n_ctxs=len(texts),
            ctx_len=max(1, int(sum(words) / len(texts) * 0.9)),
            refresh_batch_size=32,
            device="cpu",
        )
        buffer.ctx_len = LENGTHS[1]  # the size asked for is in tokens; texts are not cut
        buffer.refresh()
        return len(buffer.activations)

    return run


def saelens_store(model: Any, tokenizer: Any) -> Callable[[list[str]], int]:
    """SAELens' ActivationsStore on the same Hugging Face model, packed contexts of 128."""
    from datasets import Dataset
    from sae_lens.load_model import HookedProxyLM
    from sae_lens.training.activations_store import ActivationsStore

    hook = f"gpt_neox.layers.{BLOCK}"
    proxy = HookedProxyLM(model, tokenizer, hook_names=[hook])

    def run(texts: list[str]) -> int:
        store = ActivationsStore(
            model=proxy,
            dataset=Dataset.from_dict({"text": texts}),
            streaming=False,
            hook_name=hook,
            hook_head_index=None,
            context_size=128,
            d_in=512,
            n_batches_in_buffer=4,
            total_training_tokens=10**9,
            store_batch_size_prompts=16,
            train_batch_size_tokens=2048,
            prepend_bos=True,
            normalize_activations="none",
            device=torch.device("cpu"),
            dtype="float32",
        )
        total, wanted = 0, sum(len(t.split()) for t in texts)
        while total < wanted * 0.9:
            total += len(store.get_raw_llm_batch()[0])
        return total

    return run


def parity(causal: Any, low: LanguageModel | None, tokenizer: Any, texts: list[str]) -> dict[str, float]:
    """Each document against its own unbatched run through the plain model."""
    model = wrap_model(causal, tokenizer)
    found = harvest(model, texts, f"blocks.{BLOCK}")
    halved = harvest(low, texts, f"blocks.{BLOCK}") if low is not None else None
    largest, lowest = 0.0, 1.0
    for i, text in enumerate(texts):
        with torch.no_grad():
            plain = causal(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[
                BLOCK + 1
            ][0]
        largest = max(largest, float((found.x[found.text_ids == i] - plain).abs().max()))
        if halved is not None:
            cosine = torch.cosine_similarity(halved.x[halved.text_ids == i], plain)
            lowest = min(lowest, float(cosine.min()))
    return {"documents": len(texts), "max_difference_float32": largest, "min_cosine_bfloat16": lowest}


def methods(
    threads: int, arguments: argparse.Namespace, texts: list[str]
) -> dict[str, tuple[Callable[[], int], int]]:
    """Name to (run, number of texts)."""
    causal, tokenizer = make_model()
    model = wrap_model(causal, tokenizer)
    few, some = texts[: arguments.naive_texts], texts[: arguments.peer_texts]
    found: dict[str, tuple[Callable[[], int], int]] = {
        "naive: CausalLM, output_hidden_states, batch 32": (lambda: naive(causal, tokenizer, few), len(few)),
        "base model + hook, full depth, batch 32": (
            lambda: base_and_hook(causal, tokenizer, some),
            len(some),
        ),
        "debias_ssae, float32": (lambda: ours(model, texts, arguments.budget), len(texts)),
    }
    if has_fast_bf16("cpu"):
        low = wrap_model(make_model()[0], tokenizer, dtype=torch.bfloat16)
        found["debias_ssae, bfloat16"] = (lambda: ours(low, texts, arguments.budget), len(texts))
    makers = {
        "dictionary_learning ActivationBuffer (nnsight), batch 32": dictionary_learning_buffer,
        "SAELens ActivationsStore (HookedProxyLM), packed 128": saelens_store,
    }
    for name, make in makers.items():
        if arguments.no_peers:
            continue
        try:
            peer = make(*make_model())
            peer(texts[:32])
            found[name] = (lambda peer=peer: peer(some), len(some))  # type: ignore[misc]
        except ImportError as error:
            print(f"{name}: skipped, not installed ({error.name})")
    return found


def measure(threads: int, arguments: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """Interleaved rounds of every method; medians."""
    torch.set_num_threads(threads)
    rows = methods(threads, arguments, texts)
    seen: dict[str, list[Timed]] = {name: [] for name in rows}
    peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(arguments.rounds):
        for name, (run, _) in rows.items():
            if threads == 1:
                peaks["float32"].append(roofline(torch.float32, 0.4))
                peaks["bfloat16"].append(roofline(torch.bfloat16, 0.4))
            seen[name].append(timed(run))
            print(
                f"  {threads} thread(s) {name}: {seen[name][-1][2] / seen[name][-1][0]:.0f} tokens/CPU-s",
                flush=True,
            )
    per_token = 2 * 12 * 512**2 * (BLOCK + 1)
    limit = {k: statistics.median(v) / per_token for k, v in peaks.items() if v}
    out = {}
    for name, values in seen.items():
        cpu = statistics.median(tokens / seconds for seconds, _, tokens in values)
        wall = statistics.median(tokens / seconds for _, seconds, tokens in values)
        out[name] = {"texts": rows[name][1], "tokens_per_cpu_second": cpu, "tokens_per_wall_second": wall}
        if limit:
            out[name]["share_of_roofline"] = (
                cpu / limit["bfloat16" if name.endswith("bfloat16") else "float32"]
            )
    return {"methods": out, "roofline_tokens_per_cpu_second": limit}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--peer-texts", type=int, default=320)
    parser.add_argument("--naive-texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "harvest.json")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    texts = make_texts(arguments.texts)
    causal, tokenizer = make_model()
    low = wrap_model(make_model()[0], tokenizer, dtype=torch.bfloat16) if has_fast_bf16("cpu") else None
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
        "mean_tokens": sum(len(t.split()) for t in texts) / len(texts),
        "budget": arguments.budget,
        "parity": parity(causal, low, tokenizer, texts[:100]),
    }
    for threads in arguments.threads:
        results[f"threads_{threads}"] = measure(threads, arguments, texts)
    one = results.get("threads_1")
    if one:
        speed = {k: v["tokens_per_cpu_second"] for k, v in one["methods"].items()}
        base = speed["debias_ssae, float32"]
        results["times_faster_float32_1_thread"] = {k: base / v for k, v in speed.items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
