class InvalidInputError(ValueError):
    """An input that cannot work, in one sentence: what was wrong, what was found, what to write instead.

    Raised before any training starts. The scripts print it without a traceback.
    """
