"""Processes of this host: which is which, what surrounds them, and what keeps them still."""
