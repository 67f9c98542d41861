"""Lines of ``ip -batch`` by the family of addresses they are about: the batch has one option for all of them."""


def split(lines: list[str]) -> dict[str, list[str]]:
    """Return ip's option -> lines, in their order; what is about no address comes first, with IPv4."""
    return {
        "-4": [line for line in lines if ":" not in line],
        "-6": [line for line in lines if ":" in line],
    }
