"""`weighloss push` as a script: python scripts/push.py --help."""

from weighloss.cli.push import main

if __name__ == "__main__":
    main()
