"""``demo``: the whole way on synthetic biographies, offline, in minutes."""

import click

from debias_ssae.cli.benchmark import show
from debias_ssae.cli.options import FOLDER, shared
from debias_ssae.core.config import DEMO
from debias_ssae.core.io import writable_directory
from debias_ssae.text import synthetic_corpus

N_CORPUS = 4000
"""Unlabelled texts of the pool."""


@click.command()
@click.option("--out", default="demo", type=FOLDER, help="Directory for results.")
@click.option("--correlation", default=1.0, type=click.FloatRange(0, 1), help="Of gender and job.")
@click.option("--seeds", default=1, type=click.IntRange(1), help="Number of seeds.")
@click.option("--jobs", default=-1, type=int, help="Processes; -1: one a core.")
@shared("encoder", "quiet")
def demo(out: str, correlation: float, seeds: int, jobs: int, encoder: str, quiet: bool) -> None:
    """Debias synthetic biographies from end to end, offline.

    Runs SSAEDebiaser with its defaults, told the shipped list of words, on texts in which gender and profession are
    one. Prints the worst group's accuracy before and after, and where results.json and report.html lie.
    """
    from debias_ssae.benchmark import demo_table, run_benchmark
    from debias_ssae.benchmark.page import headline

    directory = writable_directory(out)
    config = DEMO.updated(seeds=seeds, encoder=encoder)
    table, splits = demo_table(config, correlation)
    results = run_benchmark(
        table,
        config,
        directory,
        corpus=synthetic_corpus(N_CORPUS, random_state=seeds),
        data={"path": f"synthetic biographies, correlation {correlation:g}"},
        splits=splits,
        jobs=jobs,
        progress=not quiet,
    )
    show(
        results,
        directory,
        {"ssae_default": "SSAEDebiaser (ssae_default)", "oracle": "balanced data (oracle)"},
    )
    click.echo(headline(results))
