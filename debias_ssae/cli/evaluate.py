"""``evaluate`` and ``predict``: a classifier on the representations of one or several models, audited or applied."""

from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from debias_ssae.audit import AuditReport, audit
from debias_ssae.audit.page import with_interval
from debias_ssae.audit.verdict import value_text
from debias_ssae.cli import checks
from debias_ssae.cli.audit import provenance, write_audit
from debias_ssae.cli.options import FILE, load_debiaser, shared
from debias_ssae.core.errors import InputError, MissingExtraError, one_line, optional_module
from debias_ssae.core.io import MANIFEST, as_json, file_digest, write_bytes
from debias_ssae.core.stats import heads
from debias_ssae.text import load_table, write_table


@click.command()
@click.argument("models", metavar="MODEL|plain...", nargs=-1, required=True)
@click.option("--train", required=True, type=FILE, help="Table that the classifier learns from.")
@click.option("--data", required=True, type=FILE, help="Table of other texts, on which it is audited.")
@click.option("--text", default="text", help="Column of texts, in both.")
@click.option("--target", required=True, help="Column of the labels, in both.")
@click.option(
    "--sensitive", required=True, multiple=True, help="Column of an attribute in --data; repeatable."
)
@click.option("--encoder", default="minilm", help="Encoder of plain if no MODEL is given with it.")
@click.option(
    "--out",
    "outs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Audit to write (.html, .json, .md); repeatable.",
)
@click.option("--save-head", type=FILE, help="Keep the classifier of the last MODEL, as .skops, for predict.")
@shared("min_group", "tolerance", "seed", "quiet")
def evaluate(models: tuple[str, ...], **options: Any) -> None:
    """Train a classifier on the representations of each MODEL and audit its predictions.

    A MODEL is a directory that fit wrote; plain is its encoder without an edit. The classifier is a logistic
    regression on standardised columns, its C chosen by 5-fold accuracy on --train. Attributes are read from
    --data alone, after the predictions.
    """
    if len(set(models)) < len(models):
        raise InputError(f"each MODEL is evaluated once; got {', '.join(models)}")
    for model in models:
        checks.check_model(model, plain=True)
    checks.check_encoder(options["encoder"])
    checks.check_outs(options["outs"], options["train"], options["data"])
    checks.check_kept([options["save_head"]], [options["train"], options["data"]])
    if options["save_head"]:
        _check_head(options["save_head"])
    train = load_table(options["train"], text=options["text"], target=options["target"])
    test = load_table(options["data"], text=options["text"], target=options["target"])
    checks.check_columns(test, options["data"], "--sensitive", options["sensitive"])
    if both := len(set(train[options["text"]]) & set(test[options["text"]])):
        click.echo(f"Warning: {both} texts of --data are also in --train: the audit will flatter.", err=True)

    predicted, head = {}, None
    for model, transform in _transforms(models, options["encoder"]):
        head = fit_head(transform(train[options["text"]].tolist()), train[options["target"]], options["seed"])
        predicted[_name(model, models)] = head.predict(transform(test[options["text"]].tolist()))
        if options["save_head"] and model == models[-1]:
            # with what it was trained on, so that predict can refuse another model's representations
            kept = {"head": head, "of": _fingerprint(model), "encoder": options["encoder"]}
            write_bytes(options["save_head"], optional_module("skops.io", "heads").dumps(kept))
    report = audit(
        test[options["target"]],
        predicted,
        sensitive_features=test[list(options["sensitive"])],
        **{name: options[name] for name in ("min_group", "tolerance")},
        random_state=options["seed"],
    )
    report = report.with_extras(provenance=provenance(options))
    click.echo(before_and_after(report) + "\n")
    write_audit(report, [], options["outs"], summary=True)
    if options["save_head"]:
        click.echo(f"Head: {options['save_head']}")


@click.command()
@click.argument("model", metavar="MODEL|plain")
@click.option("--head", required=True, type=FILE, help="Classifier that evaluate --save-head wrote (.skops).")
@shared("data", "text", "quiet")
@click.option("--out", required=True, type=FILE, help="Csv or parquet of predictions and probabilities.")
@shared("ids")
def predict(model: str, head: str, data: str, text: str, out: str, ids: tuple[str, ...]) -> None:
    """Predict the labels of a table of texts with a saved classifier. The attribute is never needed."""
    checks.check_model(model, plain=True)
    goal = Path(out)
    if goal.suffix not in (".parquet", ".csv"):
        raise InputError(f"--out {out}: expected a name that ends in .parquet or .csv")
    checks.check_kept([goal], [data, head])
    checks.check_parent(out, "--out")
    saved = _load_head(head, model)
    table = load_table(data, text=text, as_written=ids)
    checks.check_columns(table, data, "--id", ids)
    ((_, transform),) = _transforms((model,), saved["encoder"])
    X = transform(table[text].tolist())
    try:
        chances, classes = np.asarray(saved["head"].predict_proba(X)), np.asarray(saved["head"].classes_)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"--head {head} holds no fitted classifier of these representations: {one_line(error)}"
        ) from error
    if chances.shape != (len(X), len(classes)) or not np.isfinite(chances).all():
        raise InputError(f"--head {head} is damaged: it gives no probability for each class; evaluate again")
    frame = pd.DataFrame({f"p({label})": chances[:, i] for i, label in enumerate(classes)})
    frame.insert(0, "prediction", classes[np.argmax(chances, axis=1)])
    frame = checks.beside_ids(table, ids, frame)
    write_table(frame, goal)
    click.echo(f"{len(frame)} predictions: {out}")


def _transforms(models: tuple[str, ...], encoder: str) -> Any:
    """Yield each model's name and its function of texts; plain shares the encoder of the first debiaser."""
    from debias_ssae.model.encoder import ActivationEncoder

    loaded = {m: load_debiaser(m) for m in models if m != checks.PLAIN}
    encoders = {
        (d.text_encoder_.model, d.text_encoder_.layer, d.text_encoder_.pooling) for d in loaded.values()
    }
    if checks.PLAIN in models and len(encoders) > 1:
        raise InputError("plain is the encoder of the models, but they have different ones; leave plain out")
    plain = next((d.text_encoder_ for d in loaded.values()), None) or ActivationEncoder(encoder)
    for model in models:
        yield model, plain.transform if model == checks.PLAIN else loaded[model].transform


def fit_head(X: np.ndarray, y: Any, seed: int) -> Any:
    """The benchmark's head: logistic regression on standardised columns, C by 5-fold accuracy."""
    labels = np.asarray(y)
    if min(np.unique(labels, return_counts=True)[1]) < 5 or len(np.unique(labels)) < 2:
        raise InputError(
            "--train needs two classes or more, of at least five texts each, to choose C by 5 folds"
        )
    return heads.fit_head(X, labels, random_state=seed)


def before_and_after(report: AuditReport) -> str:
    """A small table: accuracy and worst group of each model, and what the later ones gain on the first."""
    section = report.sections[-1]
    first, width = report.models[0], max(12, *(len(m) for m in report.models))
    lines = [f"{'':{width}}  {'accuracy':>8}  worst group ({section})"]
    gains = {
        r["model_a"]: r
        for r in report.comparisons.to_dict("records")
        if (r["section"], r["model_b"], r["metric"]) == (section, first, "worst_group_accuracy")
    }
    for model in report.models:
        worst = report.measure_row("worst_group_accuracy", model=model, section=section)
        line = f"{model:{width}}  {report.measure('accuracy', model=model, section=section):8.3f}  "
        line += f"{value_text(worst)}, {worst['where']}"
        lines.append(line)
        if model in gains:
            gain = (gains[model][name] for name in ("difference", "ci_low", "ci_high"))
            told = with_interval(*gain, form="+z.3f")
            lines.append(f"{'':{width}}  {'':8}  {told} compared with {first}")
    return "\n".join(lines)


def _name(model: str, models: tuple[str, ...]) -> str:
    """The last part of a path, where that tells it from the others."""
    name = Path(model).name
    return str(as_json(name if sum(Path(m).name == name for m in models) == 1 else model))


def _check_head(path: str) -> None:
    from importlib.util import find_spec

    if not path.endswith(".skops"):
        raise InputError(f"--save-head {path}: expected a name that ends in .skops")
    checks.check_parent(path, "--save-head")
    if find_spec("skops") is None:  # found without importing it, which takes torch along
        raise MissingExtraError("skops", "heads")


def read_skops(path: str, option: str) -> Any:
    """What a .skops file holds, of types that skops trusts; raises InputError, naming ``option``, for anything else."""
    skops = optional_module("skops.io", "heads")
    if not Path(path).is_file():
        raise InputError(f"{option}: there is no file {path}")
    try:
        strange = skops.get_untrusted_types(file=path)
        saved = None if strange else skops.load(path)
    except Exception as error:  # a damaged zip raises nearly anything
        raise InputError(f"{option} {path} cannot be read: {error}") from error
    if strange:
        raise InputError(
            f"{option} {path} holds {strange[0]}, which skops does not trust; nothing in it was run"
        )
    return saved


def _load_head(path: str, model: str) -> dict[str, Any]:
    saved = read_skops(path, "--head")
    if (
        not isinstance(saved, dict)
        or set(saved) != {"head", "of", "encoder"}
        or type(saved["encoder"]) is not str
    ):
        raise InputError(f"--head {path} was not written by evaluate --save-head; nothing in it was run")
    if saved["of"] != _fingerprint(model):
        raise InputError(
            f"--head {path} belongs to another model than {model}; evaluate it again with --save-head"
        )
    return dict(saved)


def _fingerprint(model: str) -> str:
    """Names a model: the hash of its manifest, which holds those of all its files."""
    return checks.PLAIN if model == checks.PLAIN else file_digest(Path(model) / MANIFEST)
