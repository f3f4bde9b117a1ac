"""The model card: what was removed, from which data, with which limits."""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import yaml

from debias_ssae.audit.verdict import plain_markdown
from debias_ssae.core.device import MINILM_HUB_ID
from debias_ssae.core.io import as_json
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.erase import LinearEraser
from debias_ssae.model.readout import Normalize

_HOW = {
    True: "the latents of a sparse autoencoder that carry it are taken out of the activations inside the model, and "
    "the forward pass goes on.",
    False: "its directions are projected out of the model's vector. No latent is removed inside the model.",
}
_MEANS = {
    True: "the chosen latents no longer write into the model",
    False: "the chosen directions no longer show in the vector",
}
"""What is done, by whether latents are removed."""
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
    graph = "\n\nWithout sentence-transformers: `onnx/model.onnx` and `tokenizer/`, by onnxruntime."
    is_onnx = target == "onnx"
    usage = _filled(f"use-{library}", name=name, backend=', backend="onnx"' * is_onnx, graph=graph * is_onnx)
    return _filled(
        "card",
        front=yaml.safe_dump(front, sort_keys=False),
        name=name,
        base=base,
        attribute=_attribute(debiaser),
        how=_HOW[bool(debiaser.edits)],
        means=_MEANS[bool(debiaser.edits)],
        chosen_on="the texts that discover read"
        if _cards(debiaser)
        else "the texts that the debiaser was fitted on",
        changed=_changed(debiaser),
        usage=usage.rstrip(),
        made=_table(_removed(debiaser)),
        inside=_internals(debiaser),
        version=version("debias-ssae"),
    )


def _filled(template: str, **values: str) -> str:
    text = (files("debias_ssae.export") / "templates" / f"{template}.md").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _changed(debiaser: SSAEDebiaser) -> str:
    """What ``fit`` measured, in sentences; how long it took is of no use to a reader."""
    lines = [line for line in debiaser.summary().splitlines() if not line.startswith("Fitted in")]
    return "\n".join(f"- {plain_markdown(line)}" for line in lines)


def _public_name(name: str) -> str:
    """A hub id; of a local directory or file only its last part."""
    if name == "minilm":
        return MINILM_HUB_ID
    return Path(name).name if Path(name).exists() else name


def _attribute(debiaser: SSAEDebiaser) -> str:
    concept = debiaser.concept_
    if concept is not None:
        return f"the concept “{plain_markdown(concept.name)}”"
    scores, cards = debiaser.intervention_.selection.scores, _cards(debiaser)
    values = "" if scores is None else ", ".join(map(plain_markdown, scores.values))
    said = [f"an attribute with the values {values}"] if values else []
    if cards:
        who = "a judge" if any(one["by_judge"] for one in cards) else "a person"
        said.append(f"what {who} ticked ({_ticked(cards)})")
    return " and ".join(said) or "what was selected"


def _cards(debiaser: SSAEDebiaser) -> list[dict[str, Any]]:
    """What is known of ticked cards, by hookpoint; empty where the attribute was not given as choices."""
    reports = [one.selection.report for one in debiaser.interventions_.values()]
    return [one for r in reports for one in (r, *r.get("attributes", ())) if "ticked" in one]


def _ticked(cards: list[dict[str, Any]]) -> str:
    return ", ".join(f"“{plain_markdown(name)}”" for one in cards for name in one["ticked"]) or "nothing"


def _removed(debiaser: SSAEDebiaser) -> dict[str, Any]:
    scores = debiaser.intervention_.selection.scores
    rows: dict[str, Any] = {"attribute": _attribute(debiaser)}
    if isinstance(debiaser.corpus, str):
        rows["corpus"] = f"`{Path(debiaser.corpus).name}`"
    elif not _cards(debiaser):  # discover's SAE comes with the choices
        rows["corpus"] = "the training texts alone, or texts in memory"
    concept = debiaser.concept_
    if concept is not None:
        words = [plain_markdown(word) for word in concept.words]
        rows["values"] = ", ".join(map(plain_markdown, concept.values))
        shown = ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")
        rows["words that describe it"] = f"{len(words)}: {shown}"
    elif scores is not None:
        rows["values"] = ", ".join(plain_markdown(v) for v in scores.values)
    found, cards = [] if scores is None else [scores.method.replace("_", " ")], _cards(debiaser)
    if cards:
        rows["ticked cards"] = _ticked(cards)
        n, total = sum(len(c["ticked"]) for c in cards), sum(c["cards"] for c in cards)
        found.append(f"discover, {n} of {total} cards ticked")
    rows["found by"] = " and ".join(found) or "nothing"
    for hookpoint, part in debiaser.interventions_.items():
        rows[f"at `{hookpoint}`"] = f"{len(part.selection.ids)} of {part.sae.cfg.d_sae} latents removed"
    eraser, kind = debiaser.output_eraser_, str(debiaser.output_kind_).replace("_", " ")
    rows["output eraser"] = f"{kind}, rank {len(eraser.read)}" if isinstance(eraser, LinearEraser) else "none"
    dates = [
        part.record["review"]["date"] for part in debiaser.interventions_.values() if "review" in part.record
    ]
    by_person = bool(cards) and not any(one["by_judge"] for one in cards)
    rows["reviewed by a person"] = f"yes, {max(dates)}" if dates else "yes" if by_person else "no"
    encoder = debiaser.text_encoder_
    readout = encoder.readout
    over = "all tokens, special ones included" if readout.special else "the text's own tokens"
    ways = " and ".join(readout.modes)
    scaled, last = "", debiaser.shift_ is None and debiaser.output_eraser_ is None
    if any(isinstance(layer, Normalize) for layer in readout.layers):
        scaled = "; the model scales each vector to length 1" + (
            "" if last else ", and what follows the edit is added after that: the result has another length"
        )
    rows["representation"] = f"`{encoder.layer}`, {ways} over {over}{scaled}"
    return rows


def _internals(debiaser: SSAEDebiaser) -> str:
    """What only somebody who repeats it needs: every number of the records, as ``fit`` wrote them, SAEs, versions."""
    told: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat()}
    told |= {name: version(name) for name in PACKAGES}
    told["share of the edit that is made"] = debiaser.intervention_.eraser.alpha
    told["shift of the output"] = None if debiaser.shift_ is None else float(np.linalg.norm(debiaser.shift_))
    for hookpoint, part in debiaser.interventions_.items():
        kept = {key: value for key, value in part.record.items() if key not in ("review", "selection")}
        sae = f"{part.sae.cfg.architecture}, {part.sae.fingerprint()[:16]}"
        told[hookpoint] = {"SAE": sae, **kept}
    return json.dumps(as_json(told), indent=1, ensure_ascii=False)


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])
