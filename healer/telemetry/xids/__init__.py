"""What a line of the kernel log means: which error it is, what it asks for, and who says so.

May live here: catalogues of codes as tables, the recognition of lines, the judgement of what was recognised. May not:
I/O, a clock, and what to do about it, which is a playbook's.
"""
