"""``demo``: the whole way on synthetic biographies, offline, in minutes."""

import click

from debias_ssae.cli.benchmark import show
from debias_ssae.cli.options import FOLDER, shared
from debias_ssae.core.config import DEMO
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import writable_directory
from debias_ssae.text import synthetic_biographies, synthetic_corpus

N_CORPUS = 4000
"""Unlabelled texts of the pool."""
BIOGRAPHIES = 36
"""Biographies for each one that the test and the group-annotated set take of a cell: a sixth are of one profession, of
these a quarter of the rarer gender, and a third of these are spare."""


@click.command()
@click.option("--out", default="demo", type=FOLDER, help="Directory for results.")
@click.option("--seeds", default=1, type=click.IntRange(1), help="Number of seeds.")
@click.option("--jobs", default=-1, type=int, help="Processes; -1: one a core.")
@shared("encoder", "quiet")
def demo(out: str, seeds: int, jobs: int, encoder: str) -> None:
    """Debias synthetic biographies from end to end, offline.

    Runs SSAEDebiaser with its defaults, told the shipped list of words, for a head that learns from texts in which
    gender and profession are one. Prints the worst group's accuracy before and after, and where results.json and
    report.html lie.
    """
    from debias_ssae.benchmark import run_benchmark
    from debias_ssae.benchmark.page import headline

    directory = writable_directory(out)
    click.echo(
        "A few thousand synthetic biographies are debiased; this takes about two minutes on two cores.",
        err=True,
    )
    config = DEMO.updated(seeds=seeds, encoder=encoder)
    n = BIOGRAPHIES * (config.n_test + config.n_attribute)
    table = synthetic_biographies(n, correlation=0.5, random_state=0)
    results = run_benchmark(
        table.rename(columns={"profession": "target", "gender": "sensitive"}),
        config,
        directory,
        corpus=synthetic_corpus(N_CORPUS, random_state=seeds),
        data={"path": "synthetic biographies"},
        jobs=jobs,
    )
    show(
        results,
        directory,
        {"ssae_default": "SSAEDebiaser (ssae_default)", "oracle": "balanced data (oracle)"},
    )
    failed = [one for one in results["skipped"] if one["method"] == "ssae_default"]
    if failed:
        raise InputError(f"the debiaser itself did not run: {failed[0]['reason']}")
    click.echo(headline(results))
