"""What helps a lab, in words that can be typed as they stand."""

_VM = "migrate-lab --vm --name"


def starts(lab: str) -> str:
    """Return what starts the machines of *lab* that are off."""
    return f"`{_VM} {lab} up` starts what is off"


def boots_anew(lab: str, machine: str) -> str:
    """Return what helps a machine whose kernel has stopped."""
    return f"`{_VM} {lab} power {machine} off`, then `on`, boots it anew"


def of_silent(lab: str, machine: str, *, stopped: bool) -> str:
    """Return why a machine that runs does not answer, and what helps. *stopped*: its kernel has told so."""
    if stopped:
        return f"its kernel has stopped, as its console says; {boots_anew(lab, machine)}"
    return f"it may be booting; if it stays so, {boots_anew(lab, machine)}"


def makes_anew(lab: str) -> str:
    """Return what helps a lab that cannot go on as it is."""
    return f"`{_VM} {lab} down`, then `up`, makes it anew"
