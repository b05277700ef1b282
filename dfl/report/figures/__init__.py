"""Figures and tables of score tables, for the terminal and as matplotlib figures."""
