"""`python -m loraft`: the same as the `loraft` command."""

from loraft.cli.app import main

main()
