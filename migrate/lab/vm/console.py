"""What a machine says on its console: whether it is ready, whether its kernel has stopped; its last words. Pure."""

from migrate.lab.vm import guest

PANIC = "Kernel panic"
SAID_BYTES = 3000


def is_ready(console: str) -> bool:
    """Return whether the machine has told that it runs commands."""
    return guest.READY in console


def has_stopped(console: str) -> bool:
    """Return whether the kernel has told that it stops, and the machine has not become ready again since."""
    return console.rfind(PANIC) > console.rfind(guest.READY)


def ending(messages: str, console: str) -> str:
    """Return what stands behind the sentence of a failure: the end of QEMU's *messages* and of its console."""
    said = (messages[-SAID_BYTES:] + console[-SAID_BYTES:]).strip()
    return f"\nthe end of its console:\n{said}" if said else ""
