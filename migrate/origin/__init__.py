"""The origin's part of a migration: what the command `migrate` does."""
