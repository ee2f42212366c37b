"""Compiler families: hypernetworks that turn a skill's text into an adapter."""
