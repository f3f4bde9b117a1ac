"""``debias-ssae concept``: the shipped word lists, one list in full, and what a list finds in your texts."""

import click

from debias_ssae.core.io import read_text
from debias_ssae.text.concept import Concept, ConceptUsage, concept_usage
from debias_ssae.text.tables import load_corpus

_N_WORDS = 30


@click.group()
def concept() -> None:
    """List the attributes described by words, print one, or try one on texts. Nothing is fitted."""


@concept.command("list")
def list_() -> None:
    """Name the concepts that come with the package."""
    for name in Concept.shipped():
        one = Concept.load(name)
        more = sorted({row.section for row in one.optional})
        optional = f"; optional: {', '.join(more)}" if more else ""
        click.echo(f"{name}: {len(one.pairs)} rows; {', '.join(one.values)}{optional}")


@concept.command()
@click.argument("name_or_file")
def show(name_or_file: str) -> None:
    """Print a concept's file: what it says of its limits, its values and its rows."""
    path = Concept.path(name_or_file)
    Concept.load(path)
    click.echo(read_text(path))


@concept.command()
@click.argument("name_or_file")
@click.option("--data", required=True, help="A .txt, csv, jsonl or parquet file.")
@click.option("--text", "column", default="text", help="The column that holds the texts.")
@click.option("--optional", multiple=True, help="An optional section to use as well; repeatable.")
@click.option("--n", "n_texts", type=click.IntRange(min=1), help="Read only the first so many texts.")
@click.option("--texts", "show_texts", is_flag=True, help="Print three texts with their counterfactuals.")
def check(
    name_or_file: str,
    data: str,
    column: str,
    optional: tuple[str, ...],
    n_texts: int | None,
    show_texts: bool,
) -> None:
    """Count what a concept finds in a table of texts, before anything is fitted.

    Texts are printed only with --texts.
    """
    one = Concept.load(name_or_file, optional=optional)
    texts = load_corpus(data, column=column)[:n_texts]
    usage = concept_usage(one, texts)
    for line in _report(one, usage):
        click.echo(line)
    if show_texts:
        for at in usage.swapped:
            shown = _around(texts[at], one.find(texts[at])[0].start)
            click.echo(f"\n  text {at}: {shown}")
            click.echo(f"  becomes: {one.counterfactual(shown) or shown}")
            click.echo(f"  scrubbed: {one.scrub(shown)}")


def _report(one: Concept, usage: ConceptUsage) -> list[str]:
    def share(n: int) -> str:
        return f"{n} ({n / max(usage.n_texts, 1):.1%})"

    lines = [
        f"{one.name} on {usage.n_texts} texts",
        f"texts with a word of it: {share(usage.n_marked)}; with words of several values: {share(usage.n_mixed)}",
        *(f"  {value}: {share(n)}" for value, n in usage.texts_of.items()),
    ]
    if not usage.n_marked:
        lines.append("No word of it occurs: nothing would be swapped, and a debiaser has nothing to go by.")
        return lines
    if never := [value for value, n in usage.texts_of.items() if not n]:
        lines.append(f"values never met: {', '.join(never)}")
    if usage.n_without_counterfactual:
        lines.append(
            f"texts without a counterfactual: {share(usage.n_without_counterfactual)}; some word has no counterpart "
            "(gaps of the table)"
        )
    gaps = [row for row in one.pairs if "" in row.words]
    if gaps:
        lines.append(
            f"rows with gaps: {len(gaps)} of {len(one.pairs)}: "
            + ", ".join(next(filter(None, row.words)) for row in gaps[:8])
            + (", ..." if len(gaps) > 8 else "")
        )
    met = [word for word in usage.words if word.n]
    lines.append(f"words met: {len(met)} of {len(usage.words)}; the most frequent:")
    lines += [f"  {word.n:>8}  {word.word} ({word.value})" for word in met[:_N_WORDS]]
    if len(met) > _N_WORDS:
        lines.append(f"  and {len(met) - _N_WORDS} more")
    ambiguous = sorted((w for w in usage.words if w.n and w.passed_over), key=lambda w: -w.passed_over)
    if ambiguous:
        lines.append("ambiguous words, met as a cue and passed over (capitals, what follows):")
        lines += [f"  {word.word}: {word.n} and {word.passed_over}" for word in ambiguous[:_N_WORDS]]
    return lines


def _around(text: str, at: int) -> str:
    """The words of the text around one place, on one line."""
    start = text.rfind(" ", 0, at - 80) + 1 if at > 80 else 0
    end = text.find(" ", at + 160)
    cut = text[start:] if end < 0 else text[start:end] + " …"
    return " ".join((("… " if start else "") + cut).split())
