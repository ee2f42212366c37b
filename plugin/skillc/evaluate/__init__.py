"""Measures how well adapters obey: suites of held-out skills, every arm beside its controls."""
