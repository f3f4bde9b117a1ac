"""A fine-tuned classifier with a debiaser's erasers inside, in memory or as a directory for transformers."""

import copy
from typing import Any

import torch

from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.erase import LinearEraser
from debias_ssae.export.modeling_debiased import DebiasedConfig, DebiasedForSequenceClassification
from debias_ssae.model.readout import last_states_module

KIND = "debias-ssae classifier 1"


def linear_eraser(debiaser: SSAEDebiaser) -> LinearEraser | None:
    """The output eraser; raises InputError for one of the user's own."""
    eraser = debiaser.output_eraser_
    if not isinstance(eraser, LinearEraser | None):
        raise InputError(
            f"the output eraser is a {type(eraser).__name__} of your own, which cannot be exported"
        )
    return eraser


@torch.no_grad()
def debiased_classifier(debiaser: SSAEDebiaser) -> DebiasedForSequenceClassification:
    """Return the classifier that ``debiaser`` was fitted on, with its own head, on debiased states.

    It shares its weights with nothing: a copy in float32. The latents are removed from a text's own tokens at their
    hookpoints; the output eraser and the shift, which are affine, are applied to every token of the last states, which
    is the same for a head that reads one token or a mean.

    Raises InputError where the encoder is no classifier (``AutoModelForSequenceClassification``, by its directory or
    in memory), for a debiaser of another layer or pooling than the head reads, and for SAEs whose latents compete
    (topk).
    """
    encoder = debiaser.text_encoder_
    model = encoder.language_model
    if model.classifier is None:
        raise InputError(
            f"{model.name} has no head of its own; give encoder= the directory of a fine-tuned classifier, or "
            "ActivationEncoder.from_model(classifier, tokenizer); of an encoder-decoder the head is not kept"
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
    parts: list[tuple[str, bool, dict[str, Any]]] = []
    for hookpoint, eraser in debiaser.edits.items():
        sae, target = eraser.sae, model.targets[hookpoint]
        if not sae.is_elementwise:
            raise InputError(
                "the latents of a topk SAE compete, so that they cannot be exported alone; use batchtopk"
            )
        bias = sae.b_enc - sae.W_enc @ sae.b_dec
        arrays = {"encode": sae.W_enc, "bias": bias, "decode": eraser.alpha * sae.W_dec}
        if sae.cfg.architecture != "relu":
            arrays["threshold"] = sae.threshold.clamp(min=0).expand(len(bias))
        is_last = hookpoint == "final"
        module = last_states_module(plain) if is_last else f"{prefix}.{names[id(target.module)]}"
        parts.append((module, target.reads_input, arrays))
    after: dict[str, Any] = {} if debiaser.shift_ is None else {"shift": debiaser.shift_}
    if output is not None:
        after |= {"read": output.read, "write": output.write, "center": output.center}
    if after:
        parts.append((last_states_module(plain), False, after))
    tokenizer = model.tokenizer
    config = DebiasedConfig(
        plain={name: value for name, value in plain.config.to_dict().items() if name != "dtype"},
        edits=[
            {
                "module": module,
                "reads_input": reads_input,
                "latents": len(arrays.get("encode", ())),
                "rank": len(arrays.get("read", ())),
                "width": model.d_model,
            }
            for module, reads_input, arrays in parts
        ],
        special_ids=sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}),
        id2label=plain.config.id2label,
        label2id=plain.config.label2id,
        problem_type=plain.config.problem_type,
    )
    made = DebiasedForSequenceClassification(config, plain)
    for erasure, (*_, arrays) in zip(made.erasures, parts, strict=True):
        for name, array in arrays.items():
            getattr(erasure, name).copy_(torch.as_tensor(array))
    return made.eval()
