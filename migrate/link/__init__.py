"""Messages between the two hosts, over any stream of bytes."""
