"""How the states of a text's tokens become its vector, and what a sentence-transformers model states of that.

A directory of sentence-transformers holds ``modules.json`` (the modules in their order), a folder for each module and
``config_sentence_transformers.json`` (prompts). What is read here is what its own ``encode`` does with them: pooling
over all tokens with the special ones, Dense layers, normalisation, the longest sequence, the prompt in front.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from debias_ssae.core.errors import InputError, brief
from debias_ssae.core.io import parse_json, read_tensors, read_text

Pooling = Literal["mean", "cls", "last", "max"]
_MODES = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "last",
}
"""Ways of pooling by the end of the settings' names (``pooling_mode_...``), in the order of concatenation."""
_Part = tuple[str, Any, Callable[[], tuple[nn.Linear, nn.Module]]]
_CURE = "give pooling='mean' (or cls, last, max) to read the language model alone"
_MOST_SKIPPED = 10**6
"""Tokens of a prompt; no model takes as many."""


@dataclass(frozen=True)
class Readout:
    """From token states to a vector: pooling, then ``layers``."""

    modes: tuple[str, ...] = ("mean",)
    """Ways of pooling, whose results are put side by side."""
    special: bool = False
    """Whether special tokens and the prompt are pooled as well; without, the text's own tokens only."""
    skipped: int = 0
    """With ``special``: so many tokens at the beginning are left out all the same (the prompt)."""
    layers: tuple[nn.Module, ...] = ()
    """Applied to the pooled vectors [n, d], in order."""

    @property
    def key(self) -> str:
        """Names what is done, for caches; empty for the mean over a text's own tokens."""
        return f"{'+'.join(self.modes)} special={self.special} skipped={self.skipped} {list(self.layers)}"

    def width(self, d_model: int) -> int:
        """Width of the vectors."""
        widths = [layer.out_features for layer in self.layers if isinstance(layer, Dense)]
        return int(widths[-1]) if widths else len(self.modes) * d_model

    def finish(self, pooled: Tensor) -> Tensor:
        """Apply the layers to pooled vectors [n, d]."""
        for layer in self.layers:
            pooled = layer.to(pooled.device)(pooled)
        return pooled

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values. Raises InputError for Dense layers, whose weights are no settings."""
        if any(not isinstance(layer, Normalize) for layer in self.layers):
            raise InputError(
                "the encoder's readout has Dense layers, which are not written; give pooling='mean'"
            )
        return {
            "modes": list(self.modes),
            "special": self.special,
            "skipped": self.skipped,
            "normalize": bool(self.layers),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Readout":
        """Rebuild a readout; raises InputError for values that are none."""
        if not isinstance(values, dict):
            raise InputError(f"a readout is {brief(values)}; expected modes, special and skipped")
        modes, special, skipped = (values.get(name) for name in ("modes", "special", "skipped"))
        known = {*get_args(Pooling), *_MODES.values()}
        if not isinstance(modes, list) or not modes or not set(map(str, modes)) <= known:
            raise InputError(
                f"a readout has the modes {modes!r}; expected some of {', '.join(sorted(known))}"
            )
        if not isinstance(special, bool) or not isinstance(skipped, int) or not 0 <= skipped <= _MOST_SKIPPED:
            raise InputError("a readout needs special (true or false) and skipped (a number of tokens)")
        return cls(tuple(modes), special, skipped, (Normalize(),) if values.get("normalize") else ())


class Normalize(nn.Module):
    """Vectors to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x / |x|."""
        return nn.functional.normalize(x, dim=-1)


class Dense(nn.Module):
    """A linear layer of sentence-transformers with its activation function."""

    def __init__(self, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__()
        self.linear, self.activation = linear.float().requires_grad_(False), activation
        self.out_features = linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return activation(x @ W.T + b)."""
        return self.activation(self.linear(x))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Stated:
    """What a model states of itself: a sentence-transformers one by its files, a classifier by its head."""

    readout: Readout = Readout()
    prompt: str = ""
    """Put in front of every text."""
    max_length: int | None = None
    """Tokens a text, special ones included."""
    pools_prompt: bool = True
    lower: bool = False
    """Whether texts are lower-cased before they are tokenised."""
    subfolder: str = ""
    """Where the language model lies in the directory."""


def as_readout(pooling: "str | Readout") -> Readout:
    """Return the readout that a name of ``Pooling`` stands for; raises InputError for an unknown name."""
    if isinstance(pooling, Readout):
        return pooling
    if pooling not in get_args(Pooling):
        raise InputError(f"Unknown pooling {pooling!r}: give auto or one of {', '.join(get_args(Pooling))}")
    return Readout((pooling,))


def pool_states(states: Tensor, real: Tensor, attention: Tensor, readout: Readout) -> Tensor:
    """Pool states [b, t, d] to [b, modes * d]: over ``real`` [b, t] tokens, or with ``special`` over ``attention``.

    "cls" is the first token of all, where the prompt is not skipped. A text without tokens to pool gives zeros.
    """
    states, whole = states.float(), attention.bool()
    if readout.skipped:
        whole = whole & (torch.arange(whole.shape[1], device=whole.device) >= readout.skipped)
    mask = whole if readout.special else real
    return torch.cat([_pool(states, whole if mode == "cls" else mask, mode) for mode in readout.modes], dim=1)


def _pool(states: Tensor, mask: Tensor, mode: str) -> Tensor:
    position = torch.arange(1, states.shape[1] + 1, device=states.device)
    if mode in ("cls", "last"):
        place = mask.int().argmax(1) if mode == "cls" else (mask * position).argmax(1)
        pooled = states[torch.arange(states.shape[0], device=states.device), place]
    elif mode == "max":
        pooled = states.masked_fill(~mask[:, :, None], -torch.inf).amax(1)
    else:
        weights = mask * position if mode == "weightedmean" else mask
        total = weights.sum(1, keepdim=True, dtype=torch.float32)
        total = total.sqrt() if mode == "mean_sqrt_len_tokens" else total
        pooled = (states * weights[:, :, None]).sum(1) / total.clamp(min=1)
    return pooled.masked_fill(~mask.any(1, keepdim=True), 0.0)


def first_of(output: Any) -> Any:
    """Return the hidden states in what a module returns. Raises InputError where there are none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        return output[0]
    if "last_hidden_state" not in output:
        raise InputError(
            f"a module of the model returns {brief(sorted(output))}, where hidden states (a tensor, a tuple, or "
            "last_hidden_state) were expected; models of this family cannot be hooked"
        )
    return output["last_hidden_state"]


def with_first(output: Any, states: Tensor) -> Any:
    """Return what a module returns with ``states`` in the place of its hidden states."""
    if isinstance(output, Tensor):
        return states
    if isinstance(output, tuple | list):
        return type(output)([states, *output[1:]])
    output["last_hidden_state"] = states
    return output


def last_states_module(classifier: Any) -> str:
    """Return the name of the module of a classifier whose output is the last hidden state, before any pooler."""
    base, seen = classifier.base_model, []
    ids = torch.ones(1, 5, dtype=torch.long, device=next(classifier.parameters()).device)
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.append((name, output)))
        for name, module in classifier.named_modules()
        if name and module is not classifier
    ]
    try:
        with torch.no_grad():
            last = first_of(base(input_ids=ids))
    finally:
        for handle in handles:
            handle.remove()
    for name, output in seen:  # in the order in which they ended: the innermost comes first
        found = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(found, Tensor) and found.shape == last.shape and torch.equal(found, last):
            return name
    raise InputError(f"no part of {type(classifier).__name__} gives its last hidden state")


def head_readout(classifier: Any) -> Readout:
    """Return which tokens' last states the head of a classifier reads, special ones included, as seen by gradients.

    The first token is "cls", the last "last"; anything else is taken for the mean.
    """
    ids = torch.arange(5, 12, device=next(classifier.parameters()).device)[None]
    read: list[Tensor] = []

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        read.append(first_of(output).detach().requires_grad_())
        return with_first(output, read[-1])

    handle = classifier.get_submodule(last_states_module(classifier)).register_forward_hook(hook)
    try:
        with torch.enable_grad():
            logits = classifier(input_ids=ids).logits
            (gradient,) = torch.autograd.grad(logits.square().sum(), read[0], allow_unused=True)
    finally:
        handle.remove()
    if gradient is None:  # the head reads something else
        return Readout(("mean",), special=True)
    used = gradient[0].abs().amax(1).nonzero().flatten().tolist()
    modes = {(0,): "cls", (ids.shape[1] - 1,): "last"}
    return Readout((modes.get(tuple(used), "mean"),), special=True)


def read_stated(path: str, revision: str | None = None, *, local: bool = False) -> Stated | None:
    """Return what the sentence-transformers directory or hub model ``path`` states; None where it is none.

    ``local`` looks at what is on disk only. Raises InputError for modules that cannot be followed.
    """
    find = partial(_file, path, revision, local)
    listed = _json(find("modules.json"))
    if listed is None:
        return None
    modules = []
    for entry in listed if isinstance(listed, list) else [listed]:
        kind, where = (entry.get(name) if isinstance(entry, dict) else None for name in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(where, str):
            raise InputError(f"modules.json of {path} lists {entry!r}: expected type and path of a module")
        if not kind.startswith("sentence_transformers."):
            raise InputError(f"{path} has a module of its own ({kind}), which is not run; {_CURE}")
        modules.append((kind.rsplit(".", 1)[-1], where))
    first, where = modules[0] if modules else ("nothing", "")
    settings = _json(find(f"{where}/sentence_bert_config.json" if where else "sentence_bert_config.json"))
    prompts = _json(find("config_sentence_transformers.json"))
    parts: list[_Part] = [(kind, *_module_files(path, find, place)) for kind, place in modules[1:]]
    return _stated(first, parts, settings or {}, prompts or {}, name=path, subfolder=where)


def stated_by(model: Any) -> Stated:
    """Return what a ``SentenceTransformer`` in memory states; raises InputError for modules that cannot be followed."""
    modules = list(model) or [None]
    parts: list[_Part] = []
    for module in modules[1:]:
        config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
        parts.append((type(module).__name__, config, partial(_dense_of, module)))
    settings = {"max_seq_length": model.max_seq_length}
    settings |= {"modality_config": getattr(modules[0], "modality_config", {"text": 0})}
    prompts = {name: getattr(model, name) for name in ("prompts", "default_prompt_name", "truncate_dim")}
    return _stated(type(modules[0]).__name__, parts, settings, prompts, name="the SentenceTransformer")


def _dense_of(module: Any) -> tuple[nn.Linear, nn.Module]:
    return copy.deepcopy(module.linear), module.activation_function


def _stated(
    first: str,
    parts: list[_Part],
    settings: Mapping[str, Any],
    prompts: Mapping[str, Any],
    *,
    name: str,
    subfolder: str = "",
) -> Stated:
    """Make the statement of the ``first`` module's kind and the others': kind, settings, what reads Dense weights."""
    if first != "Transformer":
        raise InputError(f"{name} begins with {first}; expected a Transformer, whose states can be read")
    if set(settings.get("modality_config", {"text": 0})) != {"text"}:
        raise InputError(f"{name} takes messages or images, not plain texts; {_CURE}")
    if prompts.get("truncate_dim") is not None:
        raise InputError(f"{name} cuts its vectors (truncate_dim={prompts['truncate_dim']}); {_CURE}")
    modes: tuple[str, ...] = ()
    layers: list[nn.Module] = []
    pools_prompt = True
    for kind, config, dense in parts:
        on_vectors = config.get("module_input_name", "sentence_embedding") == "sentence_embedding" and (
            config.get("module_output_name") in (None, "sentence_embedding")
        )
        if kind == "Pooling" and not modes:
            modes, pools_prompt = _modes(config, name), bool(config.get("include_prompt", True))
        elif kind == "Normalize" and modes and on_vectors:
            layers.append(Normalize())
        elif kind == "Dense" and modes and on_vectors and not config.get("use_residual"):
            layers.append(Dense(*dense()))
        elif kind != "Dropout":  # does nothing outside training
            raise InputError(f"{name} has the module {kind} ({config!r}), which cannot be followed; {_CURE}")
    if not modes:
        raise InputError(f"{name} has no Pooling; {_CURE}")
    asked = prompts.get("default_prompt_name")
    return Stated(
        Readout(modes, special=True, layers=tuple(layers)),
        prompt=str((prompts.get("prompts") or {}).get(asked) or ""),
        max_length=settings.get("max_seq_length"),
        pools_prompt=pools_prompt,
        lower=bool(settings.get("do_lower_case")),
        subfolder=subfolder,
    )


def _modes(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    given = config.get("pooling_mode")
    if given is None:
        return tuple(m for end, m in _MODES.items() if config.get(f"pooling_mode_{end}")) or ("mean",)
    modes = tuple("last" if m == "lasttoken" else m for m in ([given] if isinstance(given, str) else given))
    if not modes or not set(modes) <= set(_MODES.values()):
        raise InputError(f"{name} pools by {given!r}; expected some of {', '.join(_MODES.values())}")
    return modes


def _module_files(
    path: str, find: Callable[[str], Path | None], where: str
) -> tuple[Any, Callable[[], tuple[nn.Linear, nn.Module]]]:
    """Return a module's settings, and what reads a Dense layer."""
    config = _json(find(f"{where}/config.json")) or {}

    def dense() -> tuple[nn.Linear, nn.Module]:
        weights = find(f"{where}/model.safetensors")
        if weights is None:
            raise InputError(
                f"{path}/{where} holds no model.safetensors: save the model again as safetensors"
            )
        tensors = read_tensors(weights)
        given = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        activation = getattr(nn, given.rsplit(".", 1)[-1], None) if given.startswith("torch.nn.") else None
        if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
            raise InputError(f"{path}/{where} has the activation function {given!r}, which is not torch's")
        weight = tensors.get("linear.weight")
        if weight is None or weight.dim() != 2:
            raise InputError(f"{path}/{where} holds no linear.weight")
        linear = nn.Linear(
            weight.shape[1], weight.shape[0], bias="linear.bias" in tensors, dtype=torch.float32
        )
        linear.load_state_dict({k.removeprefix("linear."): v for k, v in tensors.items()})
        return linear, activation()

    return config, dense


def _json(path: Path | None) -> Any:
    return None if path is None else parse_json(read_text(path), str(path))


def _file(path: str, revision: str | None, local: bool, name: str) -> Path | None:
    """Return where the file ``name`` of a directory or hub model lies; None where it has none."""
    if Path(path).is_dir():
        found = Path(path) / name
        return found if found.is_file() else None
    from transformers.utils import cached_file

    missing = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors")}
    cached = cached_file(path, name, revision=revision, local_files_only=local, **missing)
    return None if cached is None else Path(cached)
