"""`python -m andon` is `andon`."""

from andon.cli.main import main

main()
