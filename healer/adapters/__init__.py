"""One file per outside system, and only that file imports the system's client library.

May live here: implementations of `healer.ports`. May not: decisions.
"""
