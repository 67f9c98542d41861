"""Connections of a process that CRIU dumps and restores."""
