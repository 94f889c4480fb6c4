"""Measurements that need only the installed package: whole steps, memory, a correctness gate."""
