"""SSH to the destination, by paramiko: the agent's start, and a stream of bytes to it."""
