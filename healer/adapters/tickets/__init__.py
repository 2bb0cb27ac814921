"""Where tickets go: a folder, or a system that takes them over HTTP."""
