"""Whether a process can be moved: two hosts and a process in, *all* reasons against it out."""

from migrate.checks.reasons import files_to_copy, notes, notes_on_files, refusals

__all__ = ["files_to_copy", "notes", "notes_on_files", "refusals"]
