"""The verbs that playbooks use. Each can say what it would do, do it, observe that it is done, and undo it.

May live here: what a verb means, in terms of `healer.ports`. May not: client libraries, decisions about whether to act.
"""
