"""Memory of the process: sent ahead while it runs, and the rest when it is frozen."""
