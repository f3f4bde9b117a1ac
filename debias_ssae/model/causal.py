"""A causal language model with its head: cross-entropy with something spliced in, and gradients of what it
answers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from debias_ssae.core.device import hub_in_reach, pick_device, pick_dtype, plain_precision, resolve_model_name
from debias_ssae.core.errors import InputError, one_line
from debias_ssae.model.forward import Edit, make_batch, run_batch, token_batches, tokens_of
from debias_ssae.model.language_model import LanguageModel, quiet_loading, wrap_model

BLOCK = 64
"""Positions whose logits are in memory at a time; a vocabulary may have 262,144 words."""
SPREAD = 3
"""Tokens that run through the model for each that is scored, where not all are."""
GRADIENT_TOKENS = 1024
"""Tokens of a batch whose gradients are kept, padding included."""
_EXACT = 1e-3
"""Largest difference from the model's own logits, of their spread."""


@dataclass(frozen=True, eq=False)
class CausalModel:
    """A hookable model and the head that turns its last states into logits."""

    body: LanguageModel
    weight: Tensor
    """[n_vocabulary, d]."""
    bias: Tensor | None
    scale: float
    """Logits are multiplied by it."""
    softcap: float | None
    """Then squashed to plus or minus this (Gemma 2)."""

    def logits(self, states: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return the logits [n, v] of last states [n, d], of all words or of the ``chosen`` ids only."""
        weight = self.weight if chosen is None else self.weight[chosen]
        bias = None if self.bias is None else self.bias if chosen is None else self.bias[chosen]
        with torch.autocast(states.device.type, enabled=False):
            found = torch.nn.functional.linear(states.to(weight.dtype), weight, bias).float() * self.scale
        return found if self.softcap is None else self.softcap * torch.tanh(found / self.softcap)


@plain_precision()
def load_causal(name: str, *, device: str = "auto") -> CausalModel:
    """Load the causal language model ``name`` (a directory or a hub id) with its head.

    Raises InputError when there is no such model, and for a model that is not causal or whose head cannot be
    followed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, where = resolve_model_name(name), pick_device(device)
    options: dict[str, Any] = {"local_files_only": not hub_in_reach()}
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, output_loading_info=True, **options
            )
    except Exception as error:  # a foreign loader on files that may hold anything
        raise InputError(f"Cannot load the causal language model {name!r} ({one_line(error)})") from error
    if missing := sorted(map(str, loaded[1]["missing_keys"])):
        raise InputError(
            f"The files of {name!r} lack weights of a causal language model ({missing[0]}, ...), so that what it says "
            "would be random: give the model with its head"
        )
    module = loaded[0].to(where).requires_grad_(False)
    return wrap_causal(module, tokenizer, name=name, dtype=pick_dtype("auto", where))


@plain_precision()
def wrap_causal(
    module: Any, tokenizer: Any, *, name: str | None = None, dtype: torch.dtype = torch.float32
) -> CausalModel:
    """Make a Hugging Face model with a language-modelling head in memory hookable; see :func:`load_causal`."""
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    if head is None:
        raise InputError(
            f"{type(module).__name__} has no language-modelling head: give a causal language model"
        )
    config = module.config.get_text_config() if hasattr(module.config, "get_text_config") else module.config
    scale = float(getattr(config, "logit_scale", None) or 1)
    scale /= float(getattr(config, "logits_scaling", None) or 1)
    body = wrap_model(module, tokenizer, name=name)
    if not body.is_causal:
        raise InputError(f"{body.name} is no causal language model: its tokens attend to later ones")
    made = CausalModel(
        body,
        head.weight.detach(),
        getattr(head, "bias", None),
        scale,
        getattr(config, "final_logit_softcapping", None),
    )
    ids = torch.arange(min(9, len(made.weight)), device=body.device)[None]
    with torch.no_grad():
        states = body.module(input_ids=ids).last_hidden_state[0]
        own, ours = module(input_ids=ids).logits[0].float(), made.logits(states)
    if own.shape != ours.shape or not float((own - ours).abs().max()) <= _EXACT * max(float(own.std()), 1e-6):
        raise InputError(
            f"the head of {body.name} does more than a linear map, a scale and a cap; it cannot be followed"
        )
    if dtype == torch.float32:
        return made
    body, bias = wrap_model(module, tokenizer, name=name, dtype=dtype), made.bias
    bias = None if bias is None else bias.to(dtype)
    return replace(made, body=body, weight=made.weight.to(dtype), bias=bias)


class NextTokens(NamedTuple):
    """What a model says about scored tokens, with each thing spliced in."""

    token_ids: NDArray[np.int64]
    """[n], the tokens that were to be predicted."""
    text_ids: NDArray[np.int64]
    """[n]."""
    loss: dict[str, NDArray[np.float64]]
    """Cross-entropy [n] in nats: "clean", and each name of the splices."""
    kl: dict[str, NDArray[np.float64]]
    """Kullback-Leibler divergence [n] of the spliced from the clean prediction, by name."""


@torch.no_grad()
def next_tokens(
    model: CausalModel,
    texts: Sequence[str],
    hookpoint: str,
    splices: Mapping[str, Edit],
    *,
    max_positions: int | None = None,
    random_state: int = 0,
) -> NextTokens:
    """Return the cross-entropy of the texts' tokens in the plain model and with each of ``splices`` at ``hookpoint``.

    Scored are the texts' own tokens that have a token before them (a special one at the beginning counts), or
    ``max_positions`` of them, drawn at random from as many texts as hold SPREAD times as many tokens: the head is the
    costly part. A splice is an edit of the real tokens' rows.
    """
    body = model.body
    tokens = tokens_of(body, texts)
    scored, lengths = ~tokens.special, tokens.lengths
    scored[tokens.starts[:-1][lengths > 0]] = False
    if max_positions is not None and scored.sum() > max_positions:
        rng = np.random.default_rng(random_state)
        order = rng.permutation(len(lengths))
        spared = order[np.cumsum(lengths[order]) - lengths[order] >= SPREAD * max_positions]
        lengths = np.where(np.isin(np.arange(len(lengths)), spared), 0, lengths)
        scored &= np.repeat(lengths > 0, tokens.lengths)
        targets = np.flatnonzero(scored)
        targets = np.sort(rng.choice(targets, min(max_positions, len(targets)), replace=False))
    else:
        targets = np.flatnonzero(scored)
    rank = np.full(len(tokens.ids), -1)
    rank[targets] = np.arange(len(targets))
    owners = np.repeat(tokens.text_ids, tokens.lengths)
    loss = {name: np.zeros(len(targets)) for name in ("clean", *splices)}
    kl = {name: np.zeros(len(targets)) for name in splices}
    for sequences in token_batches(lengths, body.token_budget):
        columns = np.arange(tokens.lengths[sequences].max())
        place = np.where(
            columns < tokens.lengths[sequences][:, None], tokens.starts[sequences][:, None] + columns, 0
        )
        inside = (columns > 0) & (columns < tokens.lengths[sequences][:, None]) & (rank[place] >= 0)
        if not inside.any():
            continue
        rows, goals = rank[place[inside]], torch.from_numpy(tokens.ids[place[inside]]).to(body.device)
        before = torch.from_numpy(inside[:, 1:]).to(body.device)
        states: dict[str, Tensor] = {}
        for name, edit in (("clean", None), *splices.items()):
            batch = make_batch(body, tokens, sequences)
            run_batch(body, batch, ["final"], {} if edit is None else {hookpoint: edit})
            states[name] = batch.states["final"][:, :-1][before]
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            clean: Tensor | None = None
            for name, value in states.items():
                said = model.logits(value[part]).log_softmax(-1)
                loss[name][rows[part]] = -said.gather(1, goals[part, None])[:, 0].double().cpu().numpy()
                if clean is None:
                    clean = said
                else:
                    kl[name][rows[part]] = (clean.exp() * (clean - said)).sum(-1).double().cpu().numpy()
    return NextTokens(tokens.ids[targets], owners[targets], loss, kl)


def answer_gradients(
    model: CausalModel,
    prompts: Sequence[str],
    at: Sequence[int],
    hookpoint: str,
    answers: NDArray[np.int64],
    choices: Sequence[int],
    *,
    baseline: Tensor,
    steps: int = 6,
) -> tuple[Tensor, Tensor]:
    """Return the states [n, d] at one token of each prompt, and the mean gradients [n, d] there of how much the model
    prefers the right answer: the logit of ``choices[answers[i]]`` after the prompt less the mean logit of the others.

    ``at`` is the number of a character of that token in each prompt. The gradients are averaged over ``steps`` points
    between the state and ``baseline`` [d], beginning at the state (integrated gradients with the points of SHIFT, as
    Chanin et al. 2024 use them). Raises InputError where no token stands at the character.
    """
    body = model.body
    tokens = tokens_of(body, prompts)
    ids = torch.tensor(list(choices), device=body.device)
    x, total = torch.zeros(len(prompts), body.d_model), torch.zeros(len(prompts), body.d_model)
    origin = baseline.detach().float().to(body.device)
    for sequences in token_batches(tokens.lengths, GRADIENT_TOKENS):
        batch = make_batch(body, tokens, sequences)
        places = [_token_at(tokens, int(s), at[int(s)], prompts[int(s)]) for s in sequences]
        order = torch.cumsum(batch.real.flatten(), 0).view_as(batch.real) - 1
        rows = order[torch.arange(len(places)), torch.tensor(places)]
        last = torch.from_numpy(tokens.lengths[sequences] - 1)
        right = torch.from_numpy(answers[sequences]).to(body.device)
        for k in range(steps):
            leaf: list[Tensor] = []
            made = make_batch(body, tokens, sequences)
            run_batch(
                body, made, ["final"], {hookpoint: _fade(rows, origin, 1 - k / steps, leaf)}, with_grad=True
            )
            logits = model.logits(made.states["final"][torch.arange(len(places)), last], ids)
            own = logits.gather(1, right[:, None])[:, 0]
            preference = own - (logits.sum(1) - own) / (len(ids) - 1)
            (gradient,) = torch.autograd.grad(preference.sum(), leaf[1])
            total[sequences] += gradient.float().cpu() / steps
            x[sequences] = leaf[0].float().cpu()
    return x, total


def _fade(rows: Tensor, origin: Tensor, alpha: float, leaf: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """An edit that moves the chosen rows towards ``origin``, and leaves them and the moved ones in ``leaf``."""

    def edit(values: Tensor) -> Tensor:
        state = values[rows].detach()
        moved = (origin + alpha * (state - origin)).requires_grad_()
        leaf[:] = [state, moved]
        return values.detach().index_copy(0, rows, moved)

    return edit


def _token_at(tokens: Any, sequence: int, character: int, text: str) -> int:
    start, stop = tokens.starts[sequence], tokens.starts[sequence + 1]
    spans = tokens.spans[start:stop]
    hit = np.flatnonzero((spans[:, 0] <= character) & (character < spans[:, 1]) & ~tokens.special[start:stop])
    if not len(hit):
        raise InputError(f"no token stands at character {character} of {text[:40]!r}")
    return int(hit[-1])


def vocabulary_words(tokenizer: Any) -> list[str]:
    """Return the words of a tokenizer's vocabulary that are one token of Latin letters, sorted; one that stands
    behind a space begins with the space."""
    words = set()
    for piece in tokenizer.get_vocab():
        word = tokenizer.convert_tokens_to_string([piece])
        word = " " + word if piece[:1] in ("▁", "Ġ") and not word.startswith(" ") else word
        if re.fullmatch(" ?[A-Za-z]+", word):
            words.add(word)
    return sorted(words)
