"""`weighloss plot` as a script: python scripts/plot_precision_recall.py --help."""

from weighloss.cli.plot import main

if __name__ == "__main__":
    main()
