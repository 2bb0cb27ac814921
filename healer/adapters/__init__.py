"""One package or file per outside system, and only it imports the system's client library.

May live here: implementations of `healer.ports`. May not: decisions.
"""
