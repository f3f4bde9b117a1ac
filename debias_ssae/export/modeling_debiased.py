"""A text classifier with erasers inside: the head that it was trained with reads debiased states.

Every exported directory holds a copy of this file, which needs torch and transformers and nothing else.
"""

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

_REAL: ContextVar[Tensor | None] = ContextVar("real tokens", default=None)
"""[b, t] of the pass that runs now: True for a text's own tokens, neither padding nor special."""


class DebiasedConfig(PretrainedConfig):
    """The classifier's own settings, and where its erasers stand."""

    model_type = "debiased_classifier"

    def __init__(
        self,
        plain: dict[str, Any] | None = None,
        edits: list[dict[str, Any]] | None = None,
        special_ids: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep ``plain``, the classifier's settings; ``edits``, each with module, reads_input, latents, rank, width."""
        super().__init__(**kwargs)
        self.plain, self.edits, self.special_ids = plain or {}, edits or [], special_ids or []


class Erasure(nn.Module):
    """Latents' contributions are subtracted from a text's own tokens, or a linear eraser is applied to all tokens."""

    encode: Tensor
    bias: Tensor
    threshold: Tensor
    decode: Tensor
    read: Tensor
    write: Tensor
    center: Tensor
    shift: Tensor

    def __init__(self, latents: int, rank: int, width: int) -> None:
        """Make buffers for ``latents`` of an SAE and for ``rank`` directions of a linear eraser."""
        super().__init__()
        for name, shape in (
            ("encode", (latents, width)),
            ("bias", (latents,)),
            ("threshold", (latents,)),
            ("decode", (latents, width)),
            ("read", (rank, width)),
            ("write", (rank, width)),
            ("center", (width,)),
            ("shift", (width,)),
        ):
            self.register_buffer(name, torch.zeros(shape))

    def forward(self, states: Tensor) -> Tensor:
        """Return edited states [b, t, d]."""
        if len(self.encode):
            pre = states.to(self.encode.dtype) @ self.encode.T + self.bias
            latents = torch.where(pre > self.threshold, pre, torch.zeros_like(pre))
            real = _REAL.get()
            edited = (states - latents @ self.decode).to(states.dtype)
            return edited if real is None else torch.where(real[:, :, None], edited, states)
        x = states.to(self.center.dtype)
        return (x - (x - self.center) @ self.read.T @ self.write + self.shift).to(states.dtype)


class DebiasedForSequenceClassification(PreTrainedModel):
    """A classifier of transformers whose states are edited on the way to its head; used like the plain one."""

    config_class = DebiasedConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    special_ids: Tensor

    def __init__(self, config: DebiasedConfig, plain: nn.Module | None = None) -> None:
        """Build the classifier that ``config`` describes, or edit ``plain``, a classifier in memory."""
        super().__init__(config)
        if plain is None:
            settings = dict(config.plain)
            inner = AutoConfig.for_model(settings.pop("model_type"), **settings)
            plain = AutoModelForSequenceClassification.from_config(inner)
        self.model = plain
        self.erasures = nn.ModuleList()
        self.register_buffer("special_ids", torch.tensor(config.special_ids, dtype=torch.long))
        self.handles = []
        for told in config.edits:
            erasure = Erasure(told["latents"], told["rank"], told["width"])
            self.erasures.append(erasure)
            module = self.model.get_submodule(told["module"])
            if told["reads_input"]:
                hook = module.register_forward_pre_hook(_before(erasure), with_kwargs=True)
            else:
                hook = module.register_forward_hook(_after(erasure))
            self.handles.append(hook)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Return what the plain classifier returns, of debiased states; ``input_ids`` say which tokens are special."""
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        token = _REAL.set(real.bool() & ~torch.isin(input_ids, self.special_ids))
        try:
            return self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        finally:
            _REAL.reset(token)

    def get_input_embeddings(self) -> nn.Module:
        """Return the plain classifier's."""
        return self.model.get_input_embeddings()  # type: ignore[no-any-return]


def _before(erasure: Erasure) -> Any:
    def visit(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (erasure(args[0]), *args[1:]), kwargs
        name = next(k for k, v in kwargs.items() if isinstance(v, Tensor) and v.dim() == 3)
        return args, {**kwargs, name: erasure(kwargs[name])}

    return visit


def _after(erasure: Erasure) -> Any:
    def visit(_: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return erasure(output)
        if isinstance(output, tuple | list):
            return type(output)([erasure(output[0]), *output[1:]])
        output["last_hidden_state"] = erasure(output["last_hidden_state"])
        return output

    return visit


# a saved model takes this file along
DebiasedConfig.register_for_auto_class()
DebiasedForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
