"""`python -m bottega` is `bottega`."""

from bottega.cli.main import main

if __name__ == "__main__":
    main()
