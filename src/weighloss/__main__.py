"""`python -m weighloss`, so that `torchrun -m weighloss sweep` and `accelerate launch -m weighloss sweep` work."""

from .cli.main import main

if __name__ == "__main__":
    main()
