"""Pure decisions. Each returns a verdict with its reason; none reads a clock, does I/O or imports a client library."""
