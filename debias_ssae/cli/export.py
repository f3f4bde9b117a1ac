"""``export``: a fitted debiaser as a model for another library."""

import click

from debias_ssae.cli.checks import check_model, check_parent


@click.command()
@click.argument("model", type=click.Path(file_okay=False))
@click.argument("out", type=click.Path())
@click.option(
    "--to",
    "target",
    default="sentence-transformers",
    show_default=True,
    type=click.Choice(["sentence-transformers"]),
    help="The library that is to load it.",
)
@click.option("--reference", is_flag=True, help="Name the language model instead of copying its weights.")
def export(model: str, out: str, target: str, reference: bool) -> None:
    """Write the debiaser MODEL as a directory OUT for another library.

    Its vectors are those of transform. OUT holds the erasers, not the SAE, and a model card.
    """
    check_model(model)
    check_parent(out, "OUT")
    from debias_ssae.debiaser import SSAEDebiaser
    from debias_ssae.export import export_sentence_transformers

    export_sentence_transformers(SSAEDebiaser.load(model), out, reference=reference)
    click.echo(f'Written and read back: SentenceTransformer("{out}", trust_remote_code=True)')
