"""The kernel's interfaces: one module each, no policy."""
