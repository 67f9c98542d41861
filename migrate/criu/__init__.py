"""CRIU: got, tried, and run one request at a time."""
