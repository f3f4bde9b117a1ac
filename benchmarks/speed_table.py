"""Write the tables of docs/speed.md from benchmarks/results.

python benchmarks/speed_table.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
OURS = "debias_ssae"
KINDS = ("topk", "batchtopk", "matryoshka", "relu", "jumprelu")


def training() -> str:
    """Rows a CPU-second of one training step, by tool and architecture."""
    rates = read("sae_training")["one_thread_cpu"]["rows_per_second"]
    tools = (OURS, "SAELens", "dictionary_learning", "sparsify")
    lines = [f"| rows a CPU-second | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    for tool in tools:
        cells = [f"{rates[f'{tool} {kind}']:,}" if f"{tool} {kind}" in rates else "" for kind in KINDS]
        lines.append(f"| {tool} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shape() -> str:
    """The default's shape: rows a CPU-second, and what two short trainings reach, by tool."""
    rates = read("sae_training_quick_8192_4")["one_thread_cpu"]["rows_per_second"]
    reached = read("sae_training_8192_4")["final_fvu"]
    tools = {f"{OURS}, products in bfloat16": (f"{OURS} topk bfloat16", f"{OURS} topk bfloat16 lr default")}
    tools[f"{OURS}, float32"] = (f"{OURS} topk", f"{OURS} topk float32 lr default")
    for tool in ("SAELens", "dictionary_learning", "sparsify"):
        tried = [name for name in reached if name.startswith(f"{tool} ")]
        if not tried:
            continue
        best = min(tried, key=lambda name: sum(reached[name]["fvu"]))
        tools[f"{tool}, learning rate {best.rpartition(' ')[2]}"] = (f"{tool} topk", best)
    lines = ["| TopK | rows a CPU-second | FVU | dead latents | PW-MCC |", "|---|---|---|---|---|"]
    for tool, (rate, quality) in tools.items():
        one = reached[quality]
        fvu, dead = (sum(one[name]) / len(one[name]) for name in ("fvu", "dead_share"))
        lines.append(f"| {tool} | {rates[rate]:,} | {fvu:.3f} | {dead:.0%} | {one['pw_mcc']:.2f} |")
    return "\n".join(lines)


def harvesting() -> str:
    """Tokens a CPU-second, by tool."""
    methods = read("harvest")["threads_1"]["methods"]
    rates = sorted((v["tokens_per_cpu_second"], name) for name, v in methods.items())
    lines = ["| tool | tokens a CPU-second |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {rate:,.0f} |" for rate, name in rates)])


def eraser() -> str:
    """How much longer an edited pass takes."""
    measured = read("eraser_cost")
    lines = ["| precision | edited over plain | 95% interval | on disk |", "|---|---|---|---|"]
    for dtype in ("bfloat16", "float32"):
        one = measured[dtype]
        low, high = one["ratio_ci"]
        size = f"{one['bytes_on_disk'] / 1e6:.1f} MB"
        lines.append(f"| {dtype} | {one['ratio']:.3f} | {low:.3f} to {high:.3f} | {size} |")
    return "\n".join(lines)


def serving() -> str:
    """Plain and debiased throughput, by library."""
    measured = read("serve")
    lines = [
        "| library | plain, texts a CPU-second | debiased | cost | 95% interval | largest difference to transform |",
        "|---|---|---|---|---|---|",
    ]
    for name, tool in (("sentence_transformers", "sentence-transformers"), ("onnxruntime", "onnxruntime")):
        one = measured[name]
        plain, debiased = (one[f"{kind}_texts_a_cpu_second"] for kind in ("plain", "debiased"))
        low, high = one["ratio_ci"]
        lines.append(
            f"| {tool} | {plain:.0f} | {debiased:.0f} | {one['ratio']:.3f} | {low:.3f} to {high:.3f} "
            f"| {one['largest_difference']:.0e} |"
        )
    return "\n".join(lines)


def scaling() -> str:
    """What a text costs in shards, and the peak of memory, by the number of texts."""
    measured = read("transform_scale")
    lines = ["| texts | ms a text | peak memory, MB |", "|---|---|---|"]
    for run in measured["runs"]:
        lines.append(f"| {run['n_texts']:,} | {run['cpu_ms_a_text']:.3f} | {run['peak_mb']:.0f} |")
    more = measured["extrapolated"]
    cost = 1000 * more["cpu_seconds"] / more["n_texts"]
    return "\n".join([*lines, f"| {more['n_texts']:,}, extrapolated | {cost:.3f} | |"])


def fitting() -> str:
    """CPU-seconds of the stages of one fit, and what it reaches, by version; means over seeds."""
    records = {name: record["fits"] for name, record in read("fit_profile").items()}
    stages = dict.fromkeys(stage for fits in records.values() for one in fits for stage in one["stages"])
    rows = {
        stage: [[one["stages"].get(stage, 0.0) for one in fits] for fits in records.values()]
        for stage in stages
    }
    rows = {stage: rows[stage] for stage in sorted(rows, key=lambda stage: -sum(rows[stage][0]))}
    rows["the whole of it"] = [[one["seconds"] for one in fits] for fits in records.values()]
    lines = [f"| CPU-seconds | {' | '.join(records)} |", "|---" * (1 + len(records)) + "|"]
    lines += [
        f"| {row} | {' | '.join(f'{sum(c) / len(c):.1f}' for c in cells)} |" for row, cells in rows.items()
    ]
    shown = {
        "worst group, retrained head": lambda one: f"{one['worst_group_retrained']:.3f}",
        "worst group, frozen head": lambda one: f"{one['worst_group_frozen']:.3f}",
        "FVU where training ended": lambda one: f"{one['special']['fvu']:.3f}",
        "latents removed": lambda one: str(one["n_removed"]),
    }
    for row, cell in shown.items():
        cells = [", ".join(map(cell, fits)) for fits in records.values()]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def filled(page: str) -> str:
    """Return ``page`` with each table between its two marks made anew."""
    for make in (fitting, training, shape, harvesting, eraser, serving, scaling):
        name = make.__name__
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{make()}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
