"""What a command's exit statuses mean, as the sentence that ends its help."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

_WIDTH = 107


def sentence(means: Mapping[int, str]) -> str:
    """One sentence with all of *means*: status -> what it says, in a few words. It is wrapped."""
    text = f"Exit status: {', '.join(f'{int(status)} {text}' for status, text in means.items())}."
    return textwrap.fill(text, _WIDTH)
