"""The file that a person edits: which latents are removed, bound to the SAE they belong to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, StrictBool, StrictInt, ValidationError

from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.review.candidates import Candidate

FORMAT = 1
_HEAD = """\
# Latents of a debiaser, for review. Set remove to true or false, then:
#   debias-ssae latents MODEL --review {name} --data TABLE --out MODEL2
# Only id and remove are read; the rest is there to help. Latents that are not listed stay as they are.
"""


class LatentChoice(BaseModel):
    """One line: remove this latent, or keep it."""

    id: StrictInt = Field(ge=0)
    remove: StrictBool


class PartChoices(BaseModel):
    """The lines of one hookpoint."""

    hookpoint: str
    sae: str
    """Fingerprint of the SAE."""
    latents: list[LatentChoice]


class Choices(BaseModel):
    """A whole file."""

    format: int
    parts: list[PartChoices]


def write_choices(debiaser: SSAEDebiaser, shown: Sequence[Candidate], path: str | Path) -> None:
    """Write the candidates' present states to a YAML file, atomically. Raises OSError."""
    content: dict[str, Any] = {"format": FORMAT, "parts": []}
    for hookpoint, part in debiaser.interventions_.items():
        lines = [
            {"id": c.latent, "remove": c.removed, "toward": c.toward, "words": " ".join(c.words)}
            for c in shown
            if c.hookpoint == hookpoint
        ]
        content["parts"].append({"hookpoint": hookpoint, "sae": part.sae.fingerprint(), "latents": lines})
    text = yaml.safe_dump(
        content, sort_keys=False, default_flow_style=None, allow_unicode=True, width=float("inf")
    )
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(_HEAD.format(name=path.name) + text, encoding="utf-8")
    partial.replace(path)


def read_choices(path: str | Path) -> Choices:
    """Read an edited file. Raises InputError that names the file and the fault."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        choices = Choices.model_validate(values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"Cannot read the review {path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{path} is no review of latents: {place}: {first['msg']} (got {first['input']!r:.60})"
        ) from error
    if choices.format != FORMAT:
        raise InputError(f"{path} has format {choices.format}; this version reads {FORMAT}")
    for part in choices.parts:
        ids = [line.id for line in part.latents]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise InputError(f"{path} names latent {twice[0]} of {part.hookpoint} twice; keep one line of it")
    return choices
