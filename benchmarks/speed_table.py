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
    for make in (fitting, training, harvesting, eraser):
        name = make.__name__
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{make()}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
