"""The version of `migrate` and of its agent, which is that of the library too (a test compares them).

Of its own, so that the agent can say it before it has loaded the library.
"""

VERSION = "0.1.0"
