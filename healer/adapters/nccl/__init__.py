"""What jobs say from inside: NCCL RAS over TCP, and the files that their ranks leave behind."""
