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


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def filled(page: str) -> str:
    """Return ``page`` with each table between its two marks made anew."""
    for make in (training, harvesting, eraser):
        name = make.__name__
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{make()}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
