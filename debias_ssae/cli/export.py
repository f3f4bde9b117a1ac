"""``export``: a fitted debiaser as a model for another library."""

from importlib.util import find_spec

import click

from debias_ssae.cli.checks import check_model, check_parent
from debias_ssae.cli.options import FOLDER
from debias_ssae.core.errors import MissingExtraError


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("out", type=click.Path())
@click.option(
    "--to",
    "target",
    default="sentence-transformers",
    type=click.Choice(["sentence-transformers", "onnx", "transformers"]),
    help="The library that is to load it; transformers: a fine-tuned classifier with its own head.",
)
@click.option("--overwrite", is_flag=True, help="Replace an export that OUT holds.")
def export(model: str, out: str, target: str, overwrite: bool) -> None:
    """Write the debiaser MODEL as a directory OUT for another library.

    Its vectors are those of transform. OUT holds the erasers, not the SAE, and a model card. With --to onnx it holds
    one graph for onnxruntime, which contains the erasers.
    """
    check_model(model)
    check_parent(out, "OUT")
    if target == "onnx" and (
        lacking := [one for one in ("onnx", "onnxscript", "onnxruntime") if not find_spec(one)]
    ):
        raise MissingExtraError(lacking[0], "onnx")
    from debias_ssae.debiaser import SSAEDebiaser
    from debias_ssae.export import export_classifier, export_onnx, export_sentence_transformers

    debiaser = SSAEDebiaser.load(model)
    if target == "transformers":
        export_classifier(debiaser, out, overwrite=overwrite)
        loads = f'AutoModelForSequenceClassification.from_pretrained("{out}", trust_remote_code=True)'
    elif target == "onnx":
        export_onnx(debiaser, out, overwrite=overwrite)
        loads = f'SentenceTransformer("{out}", backend="onnx", trust_remote_code=True)'
    else:
        export_sentence_transformers(debiaser, out, overwrite=overwrite)
        loads = f'SentenceTransformer("{out}", trust_remote_code=True)'
    click.echo(f"Load it with: {loads}")
