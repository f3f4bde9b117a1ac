"""``cache``: what is kept between fits where no --cache is given."""

import click

from debias_ssae.core.cache import KINDS, MOST_BYTES, entries, user_cache
from debias_ssae.core.cache import clear as clear_all


@click.group()
def cache() -> None:
    """Show or clear what fits keep by default: embeddings of the corpus, and sparse autoencoders.

    The environment variable DEBIAS_SSAE_CACHE names another directory, or "off".
    """


@cache.command()
def info() -> None:
    """Print where the cache is, what it holds, and its bound."""
    directory = user_cache()
    if directory is None:
        click.echo("the user's cache is turned off by DEBIAS_SSAE_CACHE")
        return
    found = entries(directory)
    click.echo(f"{directory}: {_size(sum(one.n_bytes for one in found))} of at most {_size(MOST_BYTES)}")
    for kind in KINDS:
        own = [one for one in found if one.path.parent.name == kind]
        click.echo(f"  {kind:10} {len(own):5} entries  {_size(sum(one.n_bytes for one in own))}")


@cache.command()
def clear() -> None:
    """Remove everything that the cache holds; it is made again when it is needed."""
    directory = user_cache()
    click.echo(f"{_size(0 if directory is None else clear_all(directory))} removed")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MB"
