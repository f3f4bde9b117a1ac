"""Errors and warnings that users may want to catch; each message names what came, what was expected and the cure."""


class InputError(ValueError):
    """What the user gave cannot be used. The command line prints it as one line and ends with code 2."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message holds the pip command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package {package!r}. Install it with: pip install 'debias-ssae[{extra}]'"
        )


class NothingRemovedWarning(UserWarning):
    """The debiaser was fitted without a way to find the attribute, so transform returns its input unchanged."""
