"""How a synthetic cohort compares with a real one."""
