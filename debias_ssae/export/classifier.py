"""A fine-tuned classifier with a debiaser's erasers inside, in memory or as a directory for transformers."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.erase import LinearEraser
from debias_ssae.model.readout import last_states_module

if TYPE_CHECKING:
    from debias_ssae.export.modeling_debiased import DebiasedForSequenceClassification, Erasure

KIND = "debias-ssae classifier 1"


def linear_eraser(debiaser: SSAEDebiaser) -> LinearEraser | None:
    """The output eraser; raises InputError for one of the user's own."""
    eraser = debiaser.output_eraser_
    if not isinstance(eraser, LinearEraser | None):
        raise InputError(
            f"the output eraser is a {type(eraser).__name__} of your own, which cannot be exported"
        )
    return eraser


def debiased_classifier(debiaser: SSAEDebiaser) -> "DebiasedForSequenceClassification":
    """Return the classifier that ``debiaser`` was fitted on, with its own head, on debiased states.

    It shares its weights with nothing: a copy in float32. The latents are removed from a text's own tokens at their
    hookpoints; the output eraser and the shift, which are affine, are applied to every token of the last states, which
    is the same for a head that reads one token or a mean.

    Raises InputError where the encoder is no classifier (``AutoModelForSequenceClassification``, by its directory or
    in memory), for a debiaser of another layer or pooling than the head reads, and for SAEs whose latents compete
    (topk).
    """
    from debias_ssae.export.modeling_debiased import DebiasedConfig, DebiasedForSequenceClassification

    encoder = debiaser.text_encoder_
    model = encoder.language_model
    if model.classifier is None:
        raise InputError(
            f"{model.name} has no head of its own; give encoder= the directory of a fine-tuned classifier, or "
            "ActivationEncoder.from_model(classifier, tokenizer)"
        )
    if encoder.layer != "final":
        raise InputError(f"the debiaser returns layer {encoder.layer!r}, but the head reads the last one")
    output = linear_eraser(debiaser)
    if encoder.readout.key != model.readout().key:
        raise InputError(
            f"the debiaser pools {encoder.pooling!r}, which is not what the head of {model.name} reads; fit it with "
            "pooling='auto'"
        )
    plain: Any = copy.deepcopy(model.classifier).float().cpu()
    prefix, names = plain.base_model_prefix, {id(part): name for name, part in model.module.named_modules()}
    width, edits = model.d_model, []
    for hookpoint, eraser in debiaser.edits.items():
        if not eraser.sae.is_elementwise:
            raise InputError(
                "the latents of a topk SAE compete, so that they cannot be exported alone; use batchtopk"
            )
        target = model.targets[hookpoint]
        module = f"{prefix}.{names[id(target.module)]}"
        if hookpoint == "final":
            module = last_states_module(plain)
        shape = {"latents": len(eraser.latents), "rank": 0, "width": width}
        edits.append({"module": module, "reads_input": target.reads_input, **shape})
    if output is not None or debiaser.shift_ is not None:
        shape = {"latents": 0, "rank": 0 if output is None else len(output.read), "width": width}
        edits.append({"module": last_states_module(plain), "reads_input": False, **shape})
    tokenizer = model.tokenizer
    config = DebiasedConfig(
        plain={name: value for name, value in plain.config.to_dict().items() if name != "dtype"},
        edits=edits,
        special_ids=sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}),
        id2label=plain.config.id2label,
        label2id=plain.config.label2id,
        problem_type=plain.config.problem_type,
    )
    made = DebiasedForSequenceClassification(config, plain)
    erasures: list[Any] = list(made.erasures)
    for erasure, eraser in zip(erasures, debiaser.edits.values(), strict=False):
        _fill(erasure, eraser)
    if output is not None or debiaser.shift_ is not None:
        arrays = {} if debiaser.shift_ is None else {"shift": debiaser.shift_}
        if output is not None:
            arrays |= {"read": output.read, "write": output.write, "center": output.center}
        for name, array in arrays.items():
            getattr(erasures[-1], name).copy_(torch.from_numpy(np.asarray(array)))
    return made.eval()


@torch.no_grad()
def _fill(erasure: "Erasure", eraser: Any) -> None:
    sae = eraser.sae
    erasure.encode.copy_(sae.W_enc)
    erasure.bias.copy_(sae.b_enc - sae.W_enc @ sae.b_dec)
    if sae.cfg.architecture != "relu":
        erasure.threshold.copy_(sae.threshold.clamp(min=0).expand(len(erasure.threshold)))
    erasure.decode.copy_(eraser.alpha * sae.W_dec)
