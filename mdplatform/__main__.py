"""`python -m mdplatform`: the command line, where the script `mdplatform` is not on the path."""

from mdplatform.cli import main

main()
