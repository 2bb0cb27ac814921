"""The imperative shell: wiring, the loop, the executor, the HTTP API and the web console."""
