"""The model card: what was removed, from which data, with which limits."""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from debias_ssae.core.device import MINILM_HUB_ID
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.erase import LinearEraser
from debias_ssae.text.concept import Concept

LIMITS = (
    "“Removed” means that the chosen latents no longer write into the model. What other words, topics or"
    " styles still tell about the attribute is not shown here: measure it on your own data (`probe_leakage`"
    " and `debias-ssae audit`).",
    "Latents were chosen on the texts described above. On other domains, languages or lengths of text they may"
    " miss the attribute or take something else away.",
    "A gender taken from words is a proxy with few values. It is not a person's identity, and parity on it can"
    " hide harm to people in no group, or make another attribute worse.",
    "Debiased vectors are not interchangeable with the plain model's: do not mix both in one index, and check"
    " a classifier that was trained on the plain ones before using it on these.",
    "The language model's own licence and limits stay in force.",
)
PACKAGES = ("debias-ssae", "torch", "transformers", "sentence-transformers")


def model_card(debiaser: SSAEDebiaser, name: str, target: str = "sentence-transformers") -> str:
    """Return README.md in Markdown, with the front matter that model hubs read."""
    base = _public_name(debiaser.text_encoder_.language_model.name)
    library = "transformers" if target == "transformers" else "sentence-transformers"
    front: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "text-classification" if target == "transformers" else "sentence-similarity",
        "tags": [library, "debias-ssae", "debiasing", "sparse-autoencoder"],
    }
    if "/" in base:
        front["base_model"] = base
    inside = {**_data(debiaser), **_parts(debiaser), **_made()}
    blocks = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}",
        f"`{base}` with {_attribute(debiaser)} erased: the latents of a sparse autoencoder that carry it are taken out"
        " of the activations inside the model, and the forward pass goes on.",
        f"## What changed\n\n{_changed(debiaser)}",
        _usage(name, target),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in LIMITS),
        f"## How it was made\n\n{_table(_removed(debiaser))}",
        f"<details>\n<summary>Internals: training, files, versions</summary>\n\n{_table(inside)}\n\n</details>",
        _citation(),
    ]
    return "\n\n".join(blocks) + "\n"


def _changed(debiaser: SSAEDebiaser) -> str:
    """What ``fit`` measured, in sentences; how long it took is of no use to a reader."""
    lines = [line for line in debiaser.summary().splitlines() if not line.startswith("Fitted in")]
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _public_name(name: str) -> str:
    """A hub id; of a local directory or file only its last part."""
    if name == "minilm":
        return MINILM_HUB_ID
    return Path(name).name if Path(name).exists() else name


def _attribute(debiaser: SSAEDebiaser) -> str:
    concept = debiaser.concept_
    if concept is not None:
        return f"the concept “{_plain(concept.name)}”"
    values = (
        ()
        if debiaser.intervention_.selection.scores is None
        else debiaser.intervention_.selection.scores.values
    )
    return f"an attribute with the values {', '.join(_plain(v) for v in values)}"


def _removed(debiaser: SSAEDebiaser) -> dict[str, Any]:
    scores = debiaser.intervention_.selection.scores
    rows: dict[str, Any] = {"attribute": _attribute(debiaser)}
    concept = debiaser.concept_
    if concept is not None:
        rows |= _concept(concept)
    elif scores is not None:
        rows["values"] = ", ".join(_plain(v) for v in scores.values)
    rows["found by"] = "nothing" if scores is None else scores.method.replace("_", " ")
    for hookpoint, part in debiaser.interventions_.items():
        rows[f"at `{hookpoint}`"] = f"{len(part.selection.ids)} of {part.sae.cfg.d_sae} latents removed"
    eraser, kind = debiaser.output_eraser_, str(debiaser.output_kind_).replace("_", " ")
    rows["output eraser"] = f"{kind}, rank {len(eraser.read)}" if isinstance(eraser, LinearEraser) else "none"
    dates = [
        part.record["review"]["date"] for part in debiaser.interventions_.values() if "review" in part.record
    ]
    rows["reviewed by a person"] = f"yes, {max(dates)}" if dates else "no"
    encoder = debiaser.text_encoder_
    readout = encoder.readout
    over = "all tokens, special ones included" if readout.special else "the text's own tokens"
    ways, normal = " and ".join(readout.modes), ", length 1" if readout.layers else ""
    rows["representation"] = f"`{encoder.layer}`, {ways} over {over}{normal}"
    return rows


def _parts(debiaser: SSAEDebiaser) -> dict[str, Any]:
    """What only somebody who repeats it needs."""
    rows: dict[str, Any] = {}
    for hookpoint, part in debiaser.interventions_.items():
        rows[f"SAE at `{hookpoint}`"] = f"{part.sae.cfg.architecture}, `{part.sae.fingerprint()[:16]}`"
    rows["share of the edit that is made"] = f"{debiaser.intervention_.eraser.alpha:g}"
    shift = debiaser.shift_
    rows["shift of the output"] = "none" if shift is None else f"length {np.linalg.norm(shift):.3g}"
    return rows


def _concept(concept: Concept) -> dict[str, Any]:
    words = list(concept.words)
    shown = ", ".join(_plain(w) for w in words[:8]) + (", ..." if len(words) > 8 else "")
    return {
        "values": ", ".join(map(_plain, concept.values)),
        "words that describe it": f"{len(words)}: {shown}",
    }


def _data(debiaser: SSAEDebiaser) -> dict[str, Any]:
    """Every number of the record, as ``fit`` wrote it."""
    rows: dict[str, Any] = {}
    rows["corpus"] = "the training texts alone, or texts in memory"
    if isinstance(debiaser.corpus, str):
        rows["corpus"] = f"`{Path(debiaser.corpus).name}`"

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix} {key}".strip().replace("_", " "), inner)
        elif prefix:
            text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
            rows[prefix] = _plain(text if len(text) <= 200 else text[:200] + "...")

    for hookpoint, part in debiaser.interventions_.items():
        kept = {key: value for key, value in part.record.items() if key not in ("review", "selection")}
        walk(hookpoint if len(debiaser.interventions_) > 1 else "", kept)
    return rows


def _made() -> dict[str, str]:
    return {"date": datetime.now(UTC).date().isoformat(), **{name: version(name) for name in PACKAGES}}


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _plain(text: Any) -> str:
    """Text that neither ends a table's cell nor turns into a link, an image or HTML."""
    escaped = " ".join(str(text).split())
    for sign in "\\`*_[]|!":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _usage(name: str, target: str) -> str:
    if target == "transformers":
        return f"""## Use

The directory holds the code that applies the erasers (`modeling_debiased.py`; it needs torch and transformers only), so
transformers wants to be told that it may run:

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForSequenceClassification.from_pretrained("{name}", trust_remote_code=True)
logits = model(**tokenizer(["She is a surgeon."], return_tensors="pt")).logits
```

or, by the package's own copy of that code, `debias_ssae.export.load_exported("{name}")`. The head is the one that the
classifier was trained with."""
    backend = ', backend="onnx"' if target == "onnx" else ""
    graph = (
        "\n\nWithout sentence-transformers: `onnx/model.onnx` and `tokenizer/`, by onnxruntime."
        if backend
        else ""
    )
    return f"""## Use

Needs `pip install debias-ssae`, on whose class the model runs; the directory itself holds no code. From version 6,
sentence-transformers wants to be told that classes of another package may be used:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}"{backend}, trust_remote_code=True)
vectors = model.encode(["She is a surgeon."])
```

or, without that leave, `debias_ssae.export.load_exported("{name}")`. The vectors are those of
`SSAEDebiaser.transform`; they are not normalised (`normalize_embeddings=True` does that).{graph}"""


def _citation() -> str:
    return f"""## Citation

The method follows "Decoding Dark Matter: Specialized Sparse Autoencoders for Interpreting Rare Concepts in Foundation
Models" (Muhamed, Diab, Smith; [arXiv 2411.00743](https://arxiv.org/abs/2411.00743)) and SHIFT (Marks et al.;
[arXiv 2403.19647](https://arxiv.org/abs/2403.19647)). Please cite these, the language model, and
debias-ssae {version("debias-ssae")}."""
