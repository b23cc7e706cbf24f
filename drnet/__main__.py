"""`python -m drnet` is the `drnet` command."""

from drnet.cli.main import run

if __name__ == "__main__":
    run()
