"""What is installed here, and whether it will work: findings, each with its remedy.

Nothing heavy is loaded into doctor's own process: what may crash or hang is asked in a child.
"""
