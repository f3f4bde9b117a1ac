"""Configurations: what is wrong is named, with the likely cure."""

import pytest

from debias_ssae.core.config import (
    QUICK,
    BenchmarkConfig,
    DebiasConfig,
    SAEConfig,
    load_config,
    make_config,
    parse_overrides,
)
from debias_ssae.core.errors import InputError


@pytest.mark.parametrize(
    ("cls", "values", "said"),
    [
        (SAEConfig, {"d_in": 4, "d_sa": 8}, "x: d_sa: unknown name; did you mean d_sae?"),
        (SAEConfig, {"d_in": 4, "zzz": 8}, "x: zzz: unknown name; the names are d_in, d_sae"),
        (DebiasConfig, {"general": {"n_step": 3}}, "general.n_step: unknown name; did you mean n_steps?"),
        (SAEConfig, {"d_in": 0}, "d_in: Input should be greater than or equal to 1 (got 0)"),
        (DebiasConfig, {"d_sae": 0, "kk": 1}, "d_sae: Input should be"),
        (DebiasConfig, {"activations": {"token_budget": "any"}}, "activations.token_budget"),
    ],
)
def test_wrong_fields_are_named(cls, values, said):
    with pytest.raises(InputError) as error:
        make_config(cls, values, source="x")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_are_read_and_overridden(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("d_in: 4\nk: 2\nd_sae: 8\n")
    assert load_config(SAEConfig, file, {"k": 3}).k == 3
    file.write_text("- d_in")
    with pytest.raises(InputError, match="expected a mapping"):
        load_config(SAEConfig, file)
    with pytest.raises(InputError, match="There is no file"):
        load_config(SAEConfig, tmp_path / "none.yaml")


def test_a_group_given_in_part_keeps_the_rest(tmp_path):
    default = DebiasConfig()
    changed = default.special.updated(n_steps=50)
    assert make_config(DebiasConfig, {"special": {"n_steps": 50}}).special == changed
    assert BenchmarkConfig(debias={"special": {"n_steps": 50}}).debias == default.updated(special=changed)
    file = tmp_path / "c.yaml"
    file.write_text("debias: {k: 16, special: {n_steps: 50}}\n")
    quick = make_config(BenchmarkConfig, QUICK)
    read = load_config(BenchmarkConfig, file, {"debias": {"d_sae": 64}}, defaults=QUICK)
    expected = quick.debias.updated(k=16, d_sae=64, special=quick.debias.special.updated(n_steps=50))
    assert read == quick.updated(debias=expected)


def test_one_loader_takes_objects_mappings_files_and_nothing(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("d_sae: 64\nspecial: {lr: 1e-3}\n")
    wanted = DebiasConfig(d_sae=64, special={"lr": 1e-3})
    for source in (wanted, {"d_sae": 64, "special": {"lr": 1e-3}}, file, str(file)):
        assert load_config(DebiasConfig, source) == wanted
    assert load_config(DebiasConfig) == DebiasConfig()
    file.write_text("")
    assert load_config(DebiasConfig, file) == DebiasConfig()
    pairs = parse_overrides(["special.lr=1e-3", "d_sae=64"])
    assert load_config(DebiasConfig, None, pairs) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("general: 5", r"general: expected a group of settings, name: value \(got 5\)"),
        ("general: [1, 2]", "general: expected a group of settings"),
        ("5", "expected a mapping"),
        ("1: 2", "1 is no name of a setting"),
        ("d_sae: true", "d_sae is True, expected no truth value"),
        ("d_sae: 2000000000", "d_sae: Input should be less than or equal to 16777216"),
        ("special: {tilt: nan}", "special.tilt"),
        ("special: {lr: .inf}", "special.lr"),
        ("k: " + "9" * 5000, "Cannot read"),
        ("retrieval: {n_texts: 1, n_texts: 2}", "'n_texts' is given twice"),
        ("a: " + "[" * 500 + "]" * 500, "nested more than 64 levels"),
        ("\n".join(f"x{i}: 1" for i in range(2000)), "and 1995 more"),
        ("k: [" + "1, " * 50_000 + "1]", "k: Input should be a valid integer"),
    ],
)
def test_strange_files_are_one_short_line(tmp_path, text, said):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        load_config(DebiasConfig, file)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("pair", ["d_sae", "=3", "special.=3", "d_sae=[", "general=3"])
def test_strange_overrides(pair):
    with pytest.raises(InputError, match=r"--set|general"):
        load_config(DebiasConfig, None, parse_overrides([pair]))
