"""``demo``: the whole road on synthetic biographies, offline, in minutes."""

import click

N_CORPUS = 4000
"""Unlabelled texts of the pool."""


@click.command()
@click.option(
    "--out",
    default="demo",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Directory for results.",
)
@click.option(
    "--correlation", default=1.0, show_default=True, type=click.FloatRange(0, 1), help="Of gender and job."
)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Number of seeds.")
@click.option("--encoder", default="minilm", show_default=True, help="Hugging Face model, or minilm.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def demo(out: str, correlation: float, seeds: int, encoder: str, quiet: bool) -> None:
    """Debias synthetic biographies from end to end, offline.

    Prints worst-group accuracy before, after, and with balanced training data (the oracle), and where
    results.json and report.html lie.
    """
    from debias_ssae.benchmark import demo_splits, demo_table, run_benchmark, writable_directory
    from debias_ssae.cli.benchmark import show
    from debias_ssae.core.config import DEMO
    from debias_ssae.text import synthetic_corpus

    directory = writable_directory(out)
    config = DEMO.updated(seeds=seeds, encoder=encoder)
    results = run_benchmark(
        demo_table(config, correlation),
        config,
        directory,
        corpus=synthetic_corpus(N_CORPUS, random_state=seeds),
        data={"path": f"synthetic biographies, correlation {correlation:g}"},
        cache_dir=directory / "cache",
        splits=demo_splits,
        progress=not quiet,
    )
    show(results, directory, {"erm": "before (erm)", "ssae": "after (ssae)", "oracle": "oracle"})
