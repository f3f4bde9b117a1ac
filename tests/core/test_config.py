"""Configurations: what is wrong is named, with the likely cure."""

import pytest

from debias_ssae.core.config import QUICK, BenchmarkConfig, DebiasConfig, SAEConfig, load_config, make_config
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
    with pytest.raises(InputError, match="must be a mapping"):
        load_config(SAEConfig, file)
    with pytest.raises(InputError, match="Cannot read the configuration"):
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
