"""The lab's one error. It knows nothing of migrations, so it is not part of their taxonomy."""


class LabError(Exception):
    """The lab cannot do what was asked; the message says what to do instead."""
