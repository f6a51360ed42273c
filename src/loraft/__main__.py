"""`python -m loraft`: the same as the `loraft` command, for `accelerate launch -m loraft train ...`."""

from loraft.cli import main

main()
