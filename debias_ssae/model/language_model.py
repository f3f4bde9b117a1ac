"""A Hugging Face model with its tokenizer, and where it can be hooked: found by running it, not by its family's name.

Hookpoints: ``embeddings`` (what enters the first block), ``blocks.{i}`` (residual stream after block i),
``blocks.{i}.attn`` and ``blocks.{i}.mlp`` (what the attention and the feed-forward part of block i add to the
stream, before any norm that follows), ``final`` (last hidden state as the base model returns it).
"""

import copy
import hashlib
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from threading import Lock, RLock
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from debias_ssae.core.config import TOKEN_BUDGET
from debias_ssae.core.device import (
    hub_in_reach,
    lower_weights,
    pick_device,
    pick_dtype,
    plain_precision,
    resolve_model_name,
)
from debias_ssae.core.errors import InputError, brief, is_lack_of_memory, one_line
from debias_ssae.model.readout import (
    Readout,
    Stated,
    as_readout,
    first_of,
    head_readout,
    read_stated,
    stated_by,
)

_TOLERANCE = 1e-3
"""Most that padding may change a state in the probe, of its norm; kernels differ by 1e-5 in float32."""
logger = logging.getLogger(__name__)
_LENGTHS = (9, 4)
"""Tokens of the two sequences of the probe."""
_LOCKS: WeakKeyDictionary[Any, AbstractContextManager[bool]] = WeakKeyDictionary()
_LOCKS_LOCK = Lock()


class HookTarget(NamedTuple):
    """A module and whether its input or its output is the hookpoint's value."""

    module: nn.Module
    reads_input: bool


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A base model (no language-modelling head), its tokenizer, and where it can be hooked.

    Deep copies are the same object: it is not changed by use, and scikit-learn's ``clone`` copies parameters.
    """

    name: str
    revision: str
    module: nn.Module
    tokenizer: Any
    blocks: nn.ModuleList
    targets: Mapping[str, HookTarget]
    """What is hooked for each hookpoint, in the order of the forward pass."""
    d_model: int
    dtype: torch.dtype
    """Precision of matrix products; residual stream, norms and results are float32."""
    max_length: int
    """Longest sequence in tokens that the model takes, special ones included."""
    is_causal: bool
    """Whether no token attends to a later one, so that padding on the right needs no mask: as seen in a probe."""
    stated: Stated = Stated()  # noqa: RUF009
    """What the model's sentence-transformers directory states, or its classifier's head shows."""
    unstated: str = ""
    """Why that statement cannot be followed; raised where it is asked for."""
    classifier: Any = None
    """The whole model with its head, where it is a sequence classifier; float32."""
    limit: int | None = None
    """Tokens at which texts are cut; None: where the model's directory says, else at ``max_length``."""
    token_budget: int = TOKEN_BUDGET
    """Tokens of a batch, padding included; another number gives other last bits."""

    def with_limits(self, max_length: int | None = None, token_budget: int | None = None) -> Self:
        """Return the same model, weights shared, that cuts texts at ``max_length`` tokens, special ones included, and
        runs batches of ``token_budget`` tokens; None leaves what there is. Raises InputError.
        """
        limit = self.limit if max_length is None else max_length
        budget = self.token_budget if token_budget is None else token_budget
        if limit is not None and not (isinstance(limit, int | np.integer) and limit >= 3):
            raise InputError(f"max_length={brief(limit)}: give at least 3 tokens, special ones included")
        if not (isinstance(budget, int | np.integer) and budget >= 1):
            raise InputError(f"token_budget={brief(budget)}: give at least 1 token")
        if (limit, budget) == (self.limit, self.token_budget):
            return self
        self.__dict__.setdefault("_digests", {})  # which a copy shares
        other = copy.copy(self)
        vars(other).update(limit=limit, token_budget=budget)
        return other

    @property
    def length(self) -> int:
        """Tokens at which texts are cut: ``limit``, or what the model's directory states; at most ``max_length``."""
        wanted = self.stated.max_length if self.limit is None else self.limit
        return self.max_length if wanted is None else min(wanted, self.max_length)

    def check_spans(self) -> None:
        """Raise InputError where the tokenizer does not say which characters a token is: words cannot be found then."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise InputError(
                f"the tokenizer of {self.name} ({type(self.tokenizer).__name__}) does not say where in the text its "
                "tokens stand, so no word can be found among them; use a model with a fast tokenizer, or labels"
            )

    def readout(self, pooling: str | Readout = "auto", layer: str = "final") -> Readout:
        """Return how token states at ``layer`` become a vector.

        "auto" is what the model's sentence-transformers directory states of its last layer, special tokens
        included, and of a classifier what its head reads; elsewhere, and where nothing is stated, the mean over the
        text's own tokens. Raises InputError for an unknown pooling and for a statement that cannot be followed.
        """
        if pooling != "auto":
            return as_readout(pooling)
        if layer != "final":
            return Readout()
        if self.unstated:
            raise InputError(self.unstated)
        return self.stated.readout

    @property
    def prompt(self) -> str:
        """What stands in front of every text; its tokens are context, neither read nor edited."""
        return self.stated.prompt

    @property
    def stated_key(self) -> str:
        """Names what the model states of its vectors, prompt and length; empty where it states nothing."""
        told = f"{self.stated.readout.key} {self.prompt!r} {self.stated.max_length}"
        return "" if self.stated == Stated() else told

    @property
    def hookpoints(self) -> list[str]:
        """Valid hookpoints, in the order of the forward pass."""
        return list(self.targets)

    @property
    def n_blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @cached_property
    def options(self) -> dict[str, Any]:
        """What forward is told besides tokens: keys and values are never needed again here."""
        return _options(self.module)

    @cached_property
    def n_embeddings(self) -> int:
        """Token ids that the model knows."""
        embedding: Any = self.module.get_input_embeddings()  # type: ignore[operator]
        return int(embedding.weight.shape[0])

    @property
    def fingerprint(self) -> str:
        """Hexadecimal id of name, revision, precision, weights, tokenizer and prompt; equal ids give equal rows.

        It follows changes of the weights, except through ``.data``.
        """
        return self._digest(f"{self.name}\0{self.revision}\0{self.dtype}\0{self.stated_key}")

    @property
    def weights_sha256(self) -> str:
        """Hexadecimal id of weights and tokenizer, whatever the model is called."""
        return self._digest("")

    def _digest(self, begin: str) -> str:
        state = self.module.state_dict()
        versions = sum(tensor._version for tensor in state.values())
        kept: dict[str, tuple[int, str]] = self.__dict__.setdefault("_digests", {})
        if begin not in kept or kept[begin][0] != versions:
            digest = hashlib.sha256(begin.encode())
            for key, tensor in sorted(state.items()):
                digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
            digest.update(self.tokenizer_sha256.encode())
            kept[begin] = (versions, digest.hexdigest())
        return kept[begin][1]

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hexadecimal id of the tokenizer, whatever it was last asked to truncate or pad to."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        state: Any = repr(self.tokenizer)
        if backend is not None:
            state = {
                k: v for k, v in json.loads(backend.to_str()).items() if k not in ("truncation", "padding")
            }
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def copied(self) -> Self:
        """Return the model with weights of its own."""
        parts = copy.deepcopy(
            (self.module, self.blocks, dict(self.targets))
        )  # one call, so that they stay one
        return replace(self, module=parts[0], blocks=parts[1], targets=parts[2])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, d_model={self.d_model}, n_blocks={self.n_blocks}, {self.dtype})"


def lock_of(thing: Any) -> AbstractContextManager[bool]:
    """Return the lock of a module or tokenizer: hooks and truncation are states of theirs, which threads share."""
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(thing, RLock())


@plain_precision()
def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load the base model ``name`` ("minilm", a directory or a hub id) for hooking.

    ``dtype`` "auto" multiplies in bfloat16 where the device is faster with it. What a sentence-transformers
    directory states (pooling, prompt, longest sequence) is kept in ``stated``. Raises InputError when there is no
    such model, when weights are missing from its files, and when it cannot be hooked.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    path = resolve_model_name(name)
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    here = Path(path).exists()
    local = options["local_files_only"] = here or not hub_in_reach()
    stated, unstated = None, ""
    with quiet_loading():
        try:
            stated = read_stated(path, revision, local=local)
        except (InputError, OSError) as error:  # raised where it is asked for; where there is no model, below
            unstated = str(error)
        try:
            if stated is not None and stated.subfolder:
                options["subfolder"] = stated.subfolder
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
            names = AutoConfig.from_pretrained(path, **options).architectures or ()
            with_head = stated is None and any(map(_is_classifier, names))
            module, found = (AutoModelForSequenceClassification if with_head else AutoModel).from_pretrained(
                path, dtype=torch.float32, output_loading_info=True, **options
            )
        except Exception as error:  # a foreign loader on files that may hold anything
            if is_lack_of_memory(error):
                raise
            unreached = "the hub cannot be reached, and it is not in the local cache"
            reason = unreached if local and not here else one_line(error)
            close = get_close_matches(name, ["minilm"], cutoff=0.7)
            cure = "did you mean minilm?" if close else "give a hub id, a model's directory, or minilm"
            raise InputError(f"Cannot load the model {name!r} ({reason}): {cure}") from error
    base = _base(module)
    _check_weights(name, module, base, found)
    if stated is not None and stated.lower:
        _lower_case(tokenizer)
    about: dict[str, Any] = {"name": name, "revision": revision, "unstated": unstated}
    if with_head and base is not module:
        return _with_head(module.to(where).requires_grad_(False), tokenizer, dtype=precision, **about)
    about["stated"] = stated or Stated()
    return _wrap(base.to(where).requires_grad_(False), tokenizer, module.config, dtype=precision, **about)


def full_precision(model: LanguageModel, *, trust_remote_code: bool = False) -> LanguageModel:
    """Return the model with the weights it was published with: those in use may be in bfloat16."""
    if model.dtype == torch.float32:
        return model
    options: dict[str, Any] = {"revision": model.revision or None, "trust_remote_code": trust_remote_code}
    return load_model(model.name, device="cpu", dtype="float32", **options)


@plain_precision()
def wrap_model(
    module: nn.Module, tokenizer: Any, *, name: str | None = None, dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """Make a Hugging Face model in memory hookable.

    A model with a head gives its base model, an encoder-decoder its encoder; a sequence classifier is kept beside it.
    Weights are shared with ``module``, and evaluation mode is set; for bfloat16 they are copied. Raises InputError
    where no list of attention blocks is found.
    """
    config = getattr(module, "config", None)
    if config is None or not hasattr(module, "get_input_embeddings"):
        raise InputError(f"{type(module).__name__} is no transformers model (it has no config)")
    if _is_classifier(type(module).__name__):
        return _with_head(module, tokenizer, name=name, dtype=dtype)
    base = _base(module)
    base = copy.deepcopy(base) if dtype == torch.bfloat16 else base
    return _wrap(base, tokenizer, config, name=name, dtype=dtype)


@plain_precision()
def wrap_sentence_transformer(model: Any, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Make a ``SentenceTransformer`` in memory hookable; its pooling, prompt and longest sequence are followed.

    Raises InputError for modules that cannot be followed.
    """
    stated = stated_by(model)
    module = model[0].model if hasattr(model[0], "model") else model[0].auto_model
    wrapped = wrap_model(module, model.tokenizer, dtype=dtype)
    return _state(wrapped, stated)


def _is_classifier(name: str) -> bool:
    return name.endswith("ForSequenceClassification")


def _with_head(classifier: Any, tokenizer: Any, *, dtype: torch.dtype, **about: Any) -> LanguageModel:
    """Wrap the base of a classifier, which is read where its head reads it; an encoder-decoder's head is not kept."""
    base = _base(classifier)
    if base is not classifier.base_model:
        return _wrap(base, tokenizer, classifier.config, dtype=dtype, **about)
    classifier.eval()
    about["stated"] = Stated(head_readout(classifier))
    base = copy.deepcopy(base) if dtype == torch.bfloat16 else base
    made = _wrap(base, tokenizer, classifier.config, dtype=dtype, **about)
    return replace(made, classifier=classifier)


def _wrap(
    module: nn.Module,
    tokenizer: Any,
    config: Any,
    *,
    name: str | None,
    dtype: torch.dtype,
    revision: str | None = None,
    stated: Stated = Stated(),  # noqa: B008
    unstated: str = "",
) -> LanguageModel:
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    blocks = find_blocks(module, getattr(text_config, "num_hidden_layers", None))
    module.eval()
    name = name or str(getattr(config, "name_or_path", "") or type(module).__name__)
    probe = _Probe(name, module, blocks, tokenizer)
    if dtype == torch.bfloat16 and not probe.runs_low():
        logger.info("%s does not run in bfloat16; it runs in float32", name)
        dtype = torch.float32
    if dtype == torch.bfloat16:
        lower_weights(module)
    made = LanguageModel(
        name=name,
        revision=revision or str(getattr(config, "_commit_hash", None) or ""),
        module=module,
        tokenizer=tokenizer,
        blocks=blocks,
        targets=probe.targets,
        d_model=int(text_config.hidden_size),
        dtype=dtype,
        max_length=_longest(module, text_config, tokenizer),
        is_causal=probe.is_causal,
        unstated=unstated,
    )
    return _state(made, stated)


def _state(model: LanguageModel, stated: Stated) -> LanguageModel:
    """Return the model with a statement; the prompt's tokens are counted where they are not pooled."""
    if stated.prompt and not stated.pools_prompt:
        ids = model.tokenizer([stated.prompt])["input_ids"][0]
        ends = bool(ids) and ids[-1] in model.tokenizer.all_special_ids
        stated = replace(stated, readout=replace(stated.readout, skipped=len(ids) - ends))
    return replace(model, stated=stated)


def _base(module: Any) -> nn.Module:
    """The part of a model that gives hidden states: without its head, of an encoder-decoder the encoder."""
    base = getattr(module, "base_model", module)
    # a T5 that was saved as an encoder says that it is no encoder-decoder, and is loaded with a decoder all the same
    both = isinstance(getattr(base, "encoder", None), nn.Module) and hasattr(base, "decoder")
    return base.get_encoder() if both or getattr(base.config, "is_encoder_decoder", False) else base  # type: ignore[no-any-return]


def _check_weights(name: str, module: nn.Module, base: nn.Module, found: Mapping[str, Any]) -> None:
    """Raise InputError where weights that are used were not in the files: they are random numbers, new at each load."""
    used = {id(tensor) for tensor in base.state_dict(keep_vars=True).values()}
    by_name = module.state_dict(keep_vars=True)
    missing = [
        key
        for key in sorted(map(str, found.get("missing_keys", ())))
        if "pooler." not in key and (key not in by_name or id(by_name[key]) in used)
    ]
    if missing:
        some = ", ".join(missing[:3])
        raise InputError(
            f"The files of {name!r} lack {len(missing)} of the model's weights ({some}, ...), so that they would be "
            "random: save the whole base model, with the names that its class gives them"
        )
    if getattr(base, "pooler", None) is not None and any("pooler." in key for key in found["missing_keys"]):
        base.pooler = None  # type: ignore[assignment]


def _lower_case(tokenizer: Any) -> None:
    """Have texts lower-cased, as sentence-transformers does with ``do_lower_case``."""
    from tokenizers.normalizers import Lowercase
    from tokenizers.normalizers import Sequence as Chain

    if not getattr(tokenizer, "is_fast", False):
        raise InputError("the model's do_lower_case needs a fast tokenizer; this one is slow")
    backend = tokenizer.backend_tokenizer
    backend.normalizer = Chain([Lowercase(), *([] if backend.normalizer is None else [backend.normalizer])])


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without bars and reports of transformers: what is missing is an error here."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _longest(module: nn.Module, config: Any, tokenizer: Any) -> int:
    limits = [10**6, int(getattr(tokenizer, "model_max_length", None) or 10**6)]
    for said in ("max_position_embeddings", "n_positions", "max_seq_len"):
        positions = getattr(config, said, None)
        limits += [int(positions)] if positions and positions > 0 else []
    for name, layer in module.named_modules():
        # some families (RoBERTa, MPNet) count positions from behind the padding index
        if "position_embeddings" in name and getattr(layer, "padding_idx", None) is not None:
            limits.append(len(layer.weight) - int(layer.padding_idx) - 1)  # type: ignore[arg-type]
    return min(limits)


def _options(module: nn.Module) -> dict[str, Any]:
    return {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}


def find_blocks(module: nn.Module, n_blocks: int | None = None) -> nn.ModuleList:
    """Return the list of transformer blocks: the outermost ModuleList, of ``n_blocks`` entries if given.

    Raises InputError where there is none.
    """
    level: list[nn.Module] = [module]
    while level:
        for candidate in level:
            if (
                isinstance(candidate, nn.ModuleList)
                and len(candidate) > 0
                and (n_blocks is None or len(candidate) == n_blocks)
                and any(_attends(name) and _has_matrix(child) for name, child in _parts(candidate[0]))
            ):
                return candidate
        level = [child for parent in level for child in parent.children()]
    raise InputError(
        f"{type(module).__name__} holds no list of attention blocks to hook: give a transformer model"
    )


def check_hookpoints(names: Sequence[str], valid: Sequence[str]) -> None:
    """Raise InputError for a name that is not in ``valid``, listing those that are."""
    for name in names:
        if name not in valid:
            raise InputError(f"Unknown hookpoint {name!r}: this model has {', '.join(valid)}")


def _parts(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of a block by name; of a list of sublayers (T5's ``layer``), the sublayers' children."""
    for name, child in block.named_children():
        if isinstance(child, nn.ModuleList):
            for sublayer in child:
                yield from sublayer.named_children()
        else:
            yield name, child


def _attends(name: str) -> bool:
    return "att" in name.lower() and "norm" not in name.lower()


def _feeds_forward(name: str) -> bool:
    return bool(re.search(r"mlp|feed_?forward|ffn|moe", name.lower())) and "norm" not in name.lower()


def _has_matrix(module: nn.Module) -> bool:
    return any(p.dim() > 1 for p in module.parameters())


@dataclass
class _Call:
    """What a module was given and returned in the probe."""

    module: nn.Module
    inputs: list[Tensor]
    output: Any


class _Probe:
    """Runs a model once on two sequences of random tokens: whether padding is kept out, and which modules write where.

    Raises InputError for a model that cannot be run, and for one whose states depend on the sequences beside them.
    """

    def __init__(self, name: str, module: nn.Module, blocks: nn.ModuleList, tokenizer: Any) -> None:
        self.name, self.module, self.blocks = name, module, blocks
        device = next(module.parameters()).device
        rng, special = np.random.default_rng(0), set(tokenizer.all_special_ids)
        known = min(len(tokenizer), int(module.get_input_embeddings().weight.shape[0]))  # type: ignore[operator, union-attr, arg-type]
        usable = np.asarray([i for i in range(min(known, 5000)) if i not in special] or [0])
        pad = getattr(tokenizer, "pad_token_id", None) or 0
        ids = torch.from_numpy(rng.choice(usable, (2, max(_LENGTHS))))
        ids[1, _LENGTHS[1] :] = pad
        mask = torch.ones_like(ids)
        mask[1, _LENGTHS[1] :] = 0
        self.ids, self.mask = ids.to(device), mask.to(device)
        self.calls: list[_Call] = []
        with lock_of(module), torch.no_grad(), torch.autocast(device.type, enabled=False):
            alone = [
                self._run(slice(i, i + 1), n, masked=True, record=i == 0) for i, n in enumerate(_LENGTHS)
            ]
            masked, bare = (self._run(slice(0, 2), max(_LENGTHS), masked=m) for m in (True, False))
        if not all(bool(one.isfinite().all()) for one in alone):
            raise InputError(f"The model {name!r} gives numbers that are not finite: its weights are damaged")
        tolerance = _TOLERANCE if masked.dtype == torch.float32 else 0.05
        off = self._difference(masked, alone)
        if off > tolerance:
            raise InputError(
                f"The states of {name!r} depend on the texts beside them: padded, a text differs by {off:.2g} of its "
                "norm from the same text alone. The model does not keep padding out, so that its vectors mean nothing"
            )
        self.is_causal = self._difference(bare, alone) <= tolerance / 10
        self.targets = self._targets(alone[0].shape[-1])
        self.calls.clear()

    def runs_low(self) -> bool:
        """Whether the model runs, with finite numbers, where products are in bfloat16."""
        with lock_of(self.module), torch.no_grad(), torch.autocast(self.ids.device.type, torch.bfloat16):
            try:
                return bool(self._run(slice(0, 2), max(_LENGTHS), masked=True).isfinite().all())
            except InputError:
                return False

    def _run(self, rows: slice, length: int, *, masked: bool, record: bool = False) -> Tensor:
        """Return the last hidden states, with a mask or without."""
        options = _options(self.module)
        options |= {"attention_mask": self.mask[rows, :length]} if masked else {}
        handles = []
        if record:
            for module in self.blocks.modules():
                handles.append(module.register_forward_hook(self._record, with_kwargs=True))
        try:
            return first_of(self.module(input_ids=self.ids[rows, :length], **options)).float()  # type: ignore[no-any-return]
        except Exception as error:  # a foreign model
            raise InputError(
                f"The model {self.name!r} does not run on tokens alone: {one_line(error)}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()

    def _record(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        self.calls.append(_Call(module, inputs, output))

    @staticmethod
    def _difference(batch: Tensor, alone: list[Tensor]) -> float:
        return max(
            float((batch[i, : one.shape[1]] - one[0]).norm() / one[0].norm().clamp(min=1e-12))
            for i, one in enumerate(alone)
        )

    def _targets(self, width: int) -> dict[str, HookTarget]:
        targets = {"embeddings": HookTarget(self.blocks[0], reads_input=True)}
        for i, block in enumerate(self.blocks):
            inside = {id(module) for module in block.modules()}
            calls = [call for call in self.calls if id(call.module) in inside]
            for part, find in (("attn", self._attention), ("mlp", self._feed_forward)):
                target = find(block, calls)
                if target is not None:
                    targets[f"blocks.{i}.{part}"] = HookTarget(target, reads_input=False)
            targets[f"blocks.{i}"] = HookTarget(block, reads_input=False)
        return {**targets, "final": HookTarget(self.module, reads_input=False)}

    def _attention(self, block: nn.Module, calls: list[_Call]) -> nn.Module | None:
        """What writes the attention's share: the last layer of it that ran, or the part as a whole."""
        part = _called(calls, [child for name, child in _parts(block) if _attends(name)])
        if part is None:
            return None
        last, norm_follows = _last_layer(calls, part.module)
        if last is not None and self._gives_states(last) and (norm_follows or _is_residual(part, last)):
            return last.module
        return part.module if self._gives_states(part) else None

    def _feed_forward(self, block: nn.Module, calls: list[_Call]) -> nn.Module | None:
        """The feed-forward part as a whole where there is one, else the last layer outside attention that ran."""
        part = _called(calls, [child for name, child in _parts(block) if _feeds_forward(name)])
        if part is not None:
            last, _ = _last_layer(calls, part.module)
            adds = last is not None and self._gives_states(last) and _is_residual(part, last)
            chosen = last if adds and not _equal(first_of(part.output), first_of(last.output)) else part  # type: ignore[union-attr]
            return chosen.module if chosen is not None and self._gives_states(chosen) else None
        attention = [child for name, child in _parts(block) if "att" in name.lower()]
        within = {id(module) for child in attention for module in child.modules()}
        last, _ = _last_layer([call for call in calls if id(call.module) not in within], block)
        return last.module if last is not None and self._gives_states(last) else None

    def _gives_states(self, call: _Call) -> bool:
        output = first_of(call.output)
        return isinstance(output, Tensor) and output.numel() == output.shape[-1] * _LENGTHS[0]


def _called(calls: list[_Call], modules: list[nn.Module]) -> _Call | None:
    """The call of the first of ``modules`` that ran and holds weights."""
    ids = [id(module) for module in modules if _has_matrix(module)]
    ran = {id(call.module): call for call in calls}
    return next((ran[i] for i in ids if i in ran), None)


def _last_layer(calls: list[_Call], part: nn.Module) -> tuple[_Call | None, bool]:
    """The last layer with a matrix of weights that ran in ``part``, and whether a norm ran after it."""
    inside, last, norm_follows = {id(module) for module in part.modules()}, None, False
    for call in calls:
        own = [p.dim() for p in call.module.parameters(recurse=False)]
        if id(call.module) in inside and own:
            last, norm_follows = (call, False) if max(own) > 1 else (last, True)
    return last, norm_follows


def _is_residual(part: _Call, last: _Call) -> bool:
    """Whether a part returns what its last layer gives, or that added to something that it was given."""
    whole, share = first_of(part.output), first_of(last.output)
    if whole.numel() != share.numel():
        return False
    return _equal(whole, share) or any(
        given.shape == whole.shape and _equal(whole, share.view_as(whole) + given) for given in part.inputs
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.numel() == b.numel() and torch.allclose(a.float(), b.view_as(a).float(), atol=1e-5, rtol=1e-4)
