"""Puts this directory on the path: what is here is used by tests of all kinds."""
