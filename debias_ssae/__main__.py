"""``python -m debias_ssae`` is the command line (``torchrun -m debias_ssae ...`` needs a module)."""

from debias_ssae.cli import main

if __name__ == "__main__":
    main()
