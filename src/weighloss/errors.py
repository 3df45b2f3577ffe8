import re


class InvalidInputError(ValueError):
    """An input that cannot work, in one sentence: what was wrong, what was found, what to write instead.

    Raised before any training starts. The scripts print it without a traceback.
    """


class PushError(RuntimeError):
    """A push to the Hub that failed, in one sentence: why, that nothing is lost, and what to run to push again."""


class SweepStoppedError(RuntimeError):
    """A sweep that came to an end before its last leg, in one sentence: why, what is kept, and how to go on."""


def reason(error: BaseException) -> str:
    """What an error of a library says, in one line, without addresses (an upload's is signed) and tokens."""
    while error.__cause__ is not None and not hasattr(error, "server_message"):
        error = error.__cause__  # down to what the Hub answered, or to where it began
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = re.sub(r" for url:? '?http\S+", "", lines[0]).rstrip(".:") if lines else type(error).__name__
    said = getattr(error, "server_message", None) or ""
    said = first if said.rstrip(".") in first else f"{first}: {said}"
    return re.sub(r"\bhf_[A-Za-z0-9]{12,}", "hf_***", said)
