"""Leaves: small tools that import nothing of slm_lab outside this package."""
