"""One endpoint of a TCP connection: read, isolated, rebuilt and woken."""
