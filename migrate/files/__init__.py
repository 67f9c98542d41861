"""Files that go to the other host: CRIU's images, and files of the process."""
