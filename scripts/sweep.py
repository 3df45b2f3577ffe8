"""`weighloss sweep` as a script: python scripts/sweep.py --help."""

from weighloss.cli.sweep import main

if __name__ == "__main__":
    main()
