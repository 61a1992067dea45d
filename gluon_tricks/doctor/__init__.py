"""Checks what is installed here and whether it will work: findings, each with its remedy.

Doctor's own process loads nothing heavy: what may crash or hang runs in a child process.
"""
