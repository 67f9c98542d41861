"""The ICI as a value, and as bytes. Pure: no system call is made here."""
