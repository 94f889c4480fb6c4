"""Breaks the shipped kernels one point at a time and runs the tests that cover the point."""
