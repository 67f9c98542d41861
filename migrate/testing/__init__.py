"""What an implementation of a seam must do, as checks that any test can call: ours, and those of other packages.

Each file has one seam's: a ``Case`` that says what is to be checked, and ``CHECKS``, functions that take one and
fail by AssertionError. Nothing of the program imports this.
"""
