"""What can be wrong with a command, found before anything heavy is imported and said in the words of its options."""

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debias_ssae.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PLAIN = "plain"
"""Names the encoder without an edit where a model is asked for."""
REPORTS = (".html", ".json", ".md", ".xml")
_HOOKPOINT = re.compile(r"embeddings|final|blocks\.\d+(\.attn|\.mlp)?")
# what Python calls it -> the option that says it
_OPTIONS = {
    "y_true": "--target",
    "y_pred": "--prediction",
    "y_score": "--score",
    "sensitive_features": "--sensitive",
    "control_features": "--control",
    "sample_weight": "--weight",
    "random_state": "--seed",
    "cache_dir": "--cache",
    "pos_label": "--pos-label",
    "min_group": "--min-group",
    "n_bootstrap": "--n-bootstrap",
    "n_latents": "--n-latents",
    "output_eraser": "--output-eraser",
}


def in_options(message: str) -> str:
    """An error of the library in the words of the command line; what is quoted is the user's own."""
    names = "|".join(_OPTIONS)
    return re.sub(rf"(?<![\w'\"./-])({names})(?![\w'\"./])", lambda m: _OPTIONS[m.group(1)], message)


def check_model(model: str, *, plain: bool = False) -> None:
    """Raise InputError, before anything heavy is imported, where ``model`` is no directory of a debiaser."""
    if plain and model == PLAIN:
        return
    path = Path(model)
    if path.is_dir():
        if not any(path.glob("*.json")):
            raise InputError(f"{model} holds no saved debiaser; give a directory that fit wrote")
        return
    near = [p.name for p in path.absolute().parent.glob("*/")] if path.absolute().parent.is_dir() else []
    likely = get_close_matches(path.name, near, n=1)
    cure = f"did you mean {path.with_name(likely[0])}?" if likely else "give a directory that fit wrote"
    raise InputError(f"There is no model {model}; {cure}{', or plain' if plain and not likely else ''}")


def check_encoder(name: str) -> None:
    """Raise InputError for a path that leads nowhere; whether a hub id exists only the hub can say."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local and not Path(name).exists():
        raise InputError(f"--encoder {name}: there is no such directory; give one, a hub id, or minilm")


def check_columns(table: "pd.DataFrame", path: Any, option: str, names: Iterable[str]) -> None:
    """Raise InputError for a column that is not there."""
    from debias_ssae.text.tables import demand

    demand(f"{option}: {path}", names, list(table.columns))


def beside_ids(table: "pd.DataFrame", ids: Sequence[str], frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return ``frame`` after the columns of --id, each once; raises InputError where a name is taken."""
    if taken := set(ids) & set(frame.columns):
        raise InputError(f"--id {min(taken)} has the name of a column of the output; rename that column")
    return table[list(dict.fromkeys(ids))].join(frame.set_axis(table.index))


def check_kept(outs: Iterable[str | Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Raise InputError where a file that is read would be replaced by one that is written."""
    read = [Path(path) for path in inputs if path is not None and Path(path).is_file()]
    for out in outs:
        if out is not None and any(Path(out).exists() and path.samefile(out) for path in read):
            raise InputError(f"{out} is also a file that is read, which would be lost; give another name")


def check_outs(outs: Sequence[Path], *inputs: str | Path | None) -> None:
    """Raise InputError for a report of unknown kind, in a folder that is not there or not writable, or in the place of
    one of the ``inputs``.
    """
    check_kept(outs, inputs)
    for out in outs:
        if out.suffix not in REPORTS:
            raise InputError(f"--out {out}: unknown kind of file; use one of {', '.join(REPORTS)}")
        check_parent(out, "--out")


def check_parent(path: str | Path, option: str) -> None:
    """Raise InputError where the folder that ``path`` is to lie in is not there or not writable."""
    parent = Path(path).absolute().parent
    if not parent.is_dir():
        raise InputError(f"{option} {path}: there is no directory {parent}; make it first")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{option} {path}: the directory {parent} is not writable; give another")


def check_hookpoints(names: Iterable[str], option: str = "--hookpoint") -> None:
    """Raise InputError for what is no hookpoint of any model; whether this model has it is seen later."""
    for name in names:
        if not _HOOKPOINT.fullmatch(name):
            raise InputError(
                f"{option} {name!r}: hookpoints are embeddings, blocks.N, blocks.N.attn, blocks.N.mlp and final"
            )
