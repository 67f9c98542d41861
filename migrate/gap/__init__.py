"""Packets that arrive while the process runs nowhere: caught, sent on, and given to the host that has it."""
