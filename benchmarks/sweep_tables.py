"""Write the tables of curves.py and gsae_grid.py into docs/benchmark.md, from benchmarks/results/NAME.json.

python benchmarks/sweep_tables.py                            # rewrites the page between the marks of each
python benchmarks/sweep_tables.py curves curves.json         # first keeps this run as benchmarks/results/curves.json
python benchmarks/sweep_tables.py gsae_grid grid.json
python benchmarks/sweep_tables.py gsae_grid_seeds grid.json  # some settings, more seeds
"""

import json
import re
import sys
from pathlib import Path
from textwrap import fill

from readme_table import rounded

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmark.md"
ROWS = {
    "curves": ("curves",),
    "gsae_grid": ("grid", "differences"),
    "gsae_grid_seeds": ("grid", "differences"),
}
"""The lists of each file, of which a line holds one entry."""
HEADS = ("retrained", "frozen", "frozen, re-centred")
SAES = ("gsae", "gsae_continued", "ssae_erm", "ssae")
AGAINST = ("gsae", "gsae_continued", "ssae_erm")


def curves(results: dict) -> list[str]:
    """Worst-group accuracy by number of latents and by alpha."""
    rows = results["curves"]

    def wga(method: str, head: str) -> dict[float, float]:
        return {
            r["value"]: r["worst_group_accuracy"] for r in rows if (r["method"], r["head"]) == (method, head)
        }

    def line(name: str, found: dict[float, float]) -> str:
        return f"| {name} | {' | '.join(f'{found[value]:.2f}' for value in sorted(found))} |"

    ends = {name: wga(name, "retrained")[0] for name in ("erm", "oracle")}
    zero = {0: ends["erm"]}
    shown = [(head, zero | wga("ssae", head)) for head in HEADS]
    shown.append(("random latents, retrained", zero | wga("random_latents", "retrained")))
    counts = sorted(shown[0][1])
    last = max((r for r in rows if r["method"] == "ssae"), key=lambda r: r["value"])
    default = next(r["worst_group_accuracy"] for r in rows if r["method"] == "ssae" and r["default"])
    shares = " | ".join(f"{a:g}" for a in (*sorted(wga("alpha", "retrained")), 1))
    at = " | ".join(f"{v:.2f}" for v in [*(v for _, v in sorted(wga("alpha", "retrained").items())), default])
    return [
        f"Worst-group accuracy, {_seeds(rows)}, from the full list of words; the oracle reads "
        f"{ends['oracle']:.2f}, and at {last['value']:g} the ranking ends with {last['n_latents']:.0f}:",
        "",
        f"| latents removed | {' | '.join(f'{n:g}' for n in counts)} |",
        "|" + "---|" * (len(counts) + 1),
        *(line(name, found) for name, found in shown),
        "",
        f"| alpha, retrained | {shares} |",
        "|" + "---|" * (shares.count("|") + 2),
        f"| default number of latents | {at} |",
    ]


def gsae_grid(results: dict) -> list[str]:
    """Worst-group accuracy of the four SAEs in each setting, and the paired differences."""
    settings = [setting["name"] for setting in results["settings"]]
    wga = {(r["setting"], r["head"], r["method"]): r["worst_group_accuracy"] for r in results["grid"]}
    lines = [
        f"Worst-group accuracy of {' / '.join(f'`{name}`' for name in SAES)}, {_seeds(results['grid'])}:",
        "",
        f"| setting | erm | {' | '.join(HEADS)} | oracle |",
        "|" + "---|" * (len(HEADS) + 3),
    ]
    for setting in settings:
        cells = [" / ".join(f"{wga[setting, head, name]:.3f}" for name in SAES) for head in HEADS]
        erm, oracle = (f"{wga[setting, 'retrained', name]:.3f}" for name in ("erm", "oracle"))
        lines.append(f"| {setting} | {' | '.join([erm, *cells, oracle])} |")
    for other in AGAINST:
        lines += ["", *_differences(results["differences"], settings, other)]
    return lines


def _differences(records: list[dict], settings: list[str], other: str) -> list[str]:
    of = {(r["setting"], r["head"]): r for r in records if r["against"] == other}

    def cell(one: dict) -> str:
        marks = ("\\*" if one["p_holm"] < 0.05 else "") + (" ≥" if one["p_non_inferior_holm"] < 0.05 else "")
        return f"{one['difference']:+z.3f} ({one['ci_low']:+z.3f} to {one['ci_high']:+z.3f}){marks}"

    return [
        f"`ssae` minus `{other}`, paired, 95%; \\*: p < 0.05 after Holm over the settings; ≥: shown to be no worse by "
        "0.02 (one-sided, 5%, Holm):",
        "",
        f"| setting | {' | '.join(HEADS)} |",
        "|" + "---|" * (len(HEADS) + 1),
        *(f"| {name} | {' | '.join(cell(of[name, head]) for head in HEADS)} |" for name in settings),
    ]


def _seeds(rows: list[dict]) -> str:
    n = rows[0].get("n_seeds") or len(rows[0]["worst_group_accuracy_seeds"])
    return "one seed" if n == 1 else f"{n} seeds"


def _source(results: dict) -> str:
    made = results["made"]
    took = [f"{made['seconds'] / 60:.0f} minutes on two cores"] if made["seconds"] else []
    took += (
        [f"{made['processor_seconds'] / 60:.0f} minutes of processor time"]
        if made.get("processor_seconds")
        else []
    )
    took += ["a cache held part of the work"] if "--cache" in (made["command"] or "") else []
    text = f"Made on {made['date']} by `{made['command']}` ({', '.join(took)})."
    return fill(text, 130, break_long_words=False, break_on_hyphens=False)


TABLES = {"curves": curves, "gsae_grid": gsae_grid, "gsae_grid_seeds": gsae_grid}


def table(name: str) -> str:
    """Return a kept run's tables as markdown, with what they were made from."""
    results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return "\n".join([*TABLES[name](results), "", _source(results)]) + "\n"


def marks(name: str) -> re.Pattern[str]:
    """What stands around the tables of a run in the page."""
    return re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.S)


def write(name: str, results: dict) -> None:
    """Keep the run without the digits that nobody reads, a line an entry."""
    lists = {key: results.pop(key) for key in ROWS[name]}
    text = json.dumps(results, indent=1, ensure_ascii=False)[: -len("\n}")]
    for key, rows in lists.items():
        entries = ",\n".join(json.dumps(rounded(row), ensure_ascii=False) for row in rows)
        text += f',\n "{key}": [\n{entries}\n ]'
    (RESULTS / f"{name}.json").write_text(text + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    for name in TABLES:
        text, page = table(name), PAGE.read_text(encoding="utf-8")
        PAGE.write_text(marks(name).sub(lambda m, text=text: m[1] + text + m[2], page), encoding="utf-8")
        print(text)
