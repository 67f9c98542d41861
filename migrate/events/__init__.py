"""The log of a migration on this host: what happened, line by line, for whoever asks afterwards."""
