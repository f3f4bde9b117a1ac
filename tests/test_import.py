"""The package and its command line are light until work starts."""

import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'sklearn', 'pandas', 'numpy', 'fairlearn', 'pydantic'}"
    assert run(f"import debias_ssae, sys; print({heavy} & set(sys.modules))").strip() == "set()"


def test_help_does_not_import_torch() -> None:
    code = """
import sys
from debias_ssae.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print("torch" in sys.modules)
"""
    assert run(code).strip().endswith("False")


def test_audit_does_not_import_torch() -> None:
    assert run("import sys; from debias_ssae import audit; print('torch' in sys.modules)").strip() == "False"


def test_public_names_exist() -> None:
    import debias_ssae

    assert set(debias_ssae.__all__) == set(debias_ssae._PUBLIC)
    for name in debias_ssae.__all__:
        assert getattr(debias_ssae, name) is not None


def test_unknown_name() -> None:
    import pytest

    import debias_ssae

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = debias_ssae.no_such_name


def test_the_audit_can_be_called_again_and_after_its_package_was_imported() -> None:
    code = """
import debias_ssae, debias_ssae.audit.gates
from debias_ssae import audit
for call in (audit, debias_ssae.audit, debias_ssae.audit):
    print(call([1, 0, 1, 0], [1, 0, 0, 0], sensitive_features=list("ffmm"), n_bootstrap=2).accuracy)
"""
    assert run(code).split() == ["0.75"] * 3
