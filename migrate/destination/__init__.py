"""The destination's part of a migration: what the agent does."""
