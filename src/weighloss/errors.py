class InvalidInputError(ValueError):
    """An input that cannot work, in one sentence: what was wrong, what was found, what to write instead.

    Raised before any training starts. The scripts print it without a traceback.
    """


class PushError(RuntimeError):
    """A push to the Hub that failed, in one sentence: why, that nothing is lost, and what to run to push again."""


def reason(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    error = error.__cause__ or error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = getattr(error, "server_message", None)  # the Hub's own words
    return ": ".join(dict.fromkeys([*lines[:1], *([said] if said else [])])) or type(error).__name__
