"""`python -m trisect` is `trisect`."""

from nodes.cli.app import main

if __name__ == "__main__":
    main()
