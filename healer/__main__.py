"""`python -m healer`."""

from healer.cli import main

main()
