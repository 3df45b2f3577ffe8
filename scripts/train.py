"""`weighloss train` as a script: python scripts/train.py --help."""

from weighloss.cli.train import main

if __name__ == "__main__":
    main()
