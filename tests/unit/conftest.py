"""Puts this directory on the path: what tests of several rooms share is here."""
